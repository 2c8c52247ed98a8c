"""The command that turns files of weights into others: convert."""

import dataclasses
import pathlib
from typing import Annotated

import tyro

from keras_kssl._checks import check_that
from keras_kssl.cli.words import load_encoder

_DEFAULT_IGNORE = ("fc",)


@dataclasses.dataclass(frozen=True)
class Convert:
    """Turn PyTorch's or SSL-HSIC's weights into an encoder, or an encoder into
    PyTorch's weights. Files are read as data: nothing in them is run.

    Example: kssl convert resnet50.pth resnet50.keras
    """

    source: Annotated[pathlib.Path, tyro.conf.Positional]
    """File of a PyTorch ResNet (.pth, .pt, .pth.tar, .safetensors), checkpoint.npy of
    SSL-HSIC's authors, .keras file or run folder."""
    out: Annotated[pathlib.Path, tyro.conf.Positional]
    """File to write: .keras, .pth, .pt or .safetensors."""
    prefix: str | None = None
    """For PyTorch: what stands before the encoder's names, such as module.backbone.,
    where the file has several encoders."""
    ignore: tuple[str, ...] = _DEFAULT_IGNORE
    """For PyTorch: parts of the network to leave out, such as fc projector."""
    network: str | None = None
    """For checkpoint.npy: average, which is the default, online or target."""
    mean: tuple[float, ...] | None = None
    """For weights of others: what was subtracted from the images in [0, 1], by channel.
    Default: ImageNet's."""
    std: tuple[float, ...] | None = None
    """For weights of others: by what they were then divided. Default: ImageNet's."""
    overwrite: bool = False
    """Replace what is there."""

    def run(self):
        from keras_kssl import convert, export
        from keras_kssl.convert.torch_resnet import WRITTEN

        writers = dict.fromkeys(WRITTEN, convert.torch_file)
        writers[".keras"] = export.keras_file
        check_that(
            self.out.suffix in writers,
            "convert",
            "out",
            f"a file name ending in {', '.join(writers)}",
            str(self.out),
        )
        encoder, left_out = self._read()
        print(f"Read: {_described(encoder)}")
        if left_out:
            print(f"Left out: {', '.join(left_out)}")
        path = writers[self.out.suffix](encoder, self.out, overwrite=self.overwrite)
        print(f"Written, loaded again and compared: {path}")

    def _read(self):
        """The encoder, and the names of what the file has besides."""
        from keras_kssl import convert
        from keras_kssl.convert import haiku_resnet, torch_resnet

        normalisation = {"mean": self.mean, "std": self.std}
        if self.source.suffix in torch_resnet.SUFFIXES:
            self._check_unused("a file of PyTorch", "network")
            found = torch_resnet.find_torch_resnet(
                "convert", self.source, self.prefix, self.ignore
            )
            return found.encoder(**normalisation), found.left_out
        if self.source.suffix in haiku_resnet.SUFFIXES:
            self._check_unused("a checkpoint.npy", "prefix", "ignore")
            network = self.network or haiku_resnet.NETWORKS[0]
            return convert.from_ssl_hsic_checkpoint(
                self.source, network, **normalisation
            ), ()
        self._check_unused("an encoder of Keras", "prefix", "ignore", "network")
        self._check_unused("an encoder of Keras", *normalisation)
        return load_encoder(self.source), ()

    def _check_unused(self, kind, *names):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            check_that(
                field.name not in names or value == field.default,
                "convert",
                field.name,
                f"left out for {kind}",
                value,
            )


def _described(encoder):
    from keras_kssl.models import ResNet

    if not isinstance(encoder, ResNet):
        return f"{type(encoder).__name__} {encoder.name!r}"
    return (
        f"ResNet-{encoder.depth} of width {encoder.width:g} with the {encoder.stem!r} "
        f"stem, {encoder.num_features} features"
    )
