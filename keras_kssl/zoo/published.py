"""The recipes of the papers, as plain data.

Options whose defaults depend on the machine or on the length of a run are written out.
Learning rates are given for 256 images of the batch, and the warm-up is left to its
default, 10 epochs in runs of 100 and more: both then follow a batch or a number of
epochs that is typed beside the preset.
"""

from keras_kssl.recipes import Recipe
from keras_kssl.zoo.card import Preset, Result, Weights

_SSL_HSIC = (
    "Li, Pogodin, Sutherland, Gretton: Self-Supervised Learning with Kernel Dependence "
    "Maximization, NeurIPS 2021, https://arxiv.org/abs/2106.08320",
)
_SSL_HSIC_CODE = (
    "The authors' program: https://github.com/google-deepmind/ssl_hsic (Apache-2.0)",
)
_SFRIK = (
    "Zheng, Puy, Riccietti, Pérez, Gribonval: Self-supervised learning with "
    "rotation-invariant kernels, ICLR 2023, https://arxiv.org/abs/2208.00789",
    "The authors' program: https://github.com/valeoai/sfrik (Apache-2.0)",
)
_RECIPE_LICENCE = "Recipe: Apache-2.0, as this library. There are no weights."
_IMAGENET_LICENCE = (
    "ImageNet's images: for research that is not commercial, under the terms of "
    "https://image-net.org/download"
)
_IMAGENET = (
    "ImageNet (ILSVRC 2012), 1,281,167 training images, prepared on this machine by "
    "TensorFlow Datasets (--data tfds:imagenet2012:train, the default) or as class "
    "folders (--data folder:DIR)."
)
_NO_NUMBER = (
    "No accuracy is given: none was measured by us, and none is in the sources that "
    "this recipe was taken from."
)
_RESNET18 = {"parameters": 11_176_512, "num_features": 512}
_RESNET50 = {"parameters": 23_508_032, "num_features": 2048}

_SSL_HSIC_RECIPE = Recipe(
    method="ssl_hsic",
    data="tfds:imagenet2012:train",
    encoder="resnet50",
    stem="imagenet",
    padding="same",
    projector=(4096, 256),
    augment="byol",
    size=224,
    crop_min=0.08,
    crop_max=1.0,
    flip=0.5,
    epochs=1000,
    batch_size=4096,
    optimizer="lars",
    base_learning_rate=0.4,
    final_fraction=0.0,
    weight_decay=1e-6,
    regularizer_weight=3.0,
    target=True,
    target_decay=0.99,
    normalize_output=True,
    estimator="random_features",
    num_features=512,
    average_decay=0.999,
)
_SSL_HSIC_LIMITS = (
    "The outputs of the heads are batch-normalised, as the paper says; the released "
    "program does not: --normalize-output False.",
    "The released program draws 512 random features on each of 128 devices and "
    "averages; a run on fewer devices has a noisier estimate: raise --num-features.",
)

_SFRIK_OPTIONS = {
    "method": "sfrik",
    "stem": "imagenet",
    "crop_min": 0.08,
    "crop_max": 1.0,
    "flip": 0.5,
    "batch_size": 2048,
    "optimizer": "lars",
    "final_fraction": 0.001,
    "weight_decay": 1e-6,
    "weight_per_pair": False,
    "coefficients": (1.0, 40.0, 40.0),
    "average_decay": 0.0,
}
_SFRIK_RESNET18_OPTIONS = {
    **_SFRIK_OPTIONS,
    "encoder": "resnet18",
    "projector": (8192, 8192, 8192),
    "epochs": 100,
    "base_learning_rate": 1.2,
    "invariance_weight": 4000.0,
}
_SFRIK_LIMITS = (
    "The invariance weight is for each coordinate of the embeddings, as published: "
    "with another projector it is another method. At smaller batches leave the weight "
    "to its default, 1000 / batch size for each pair: --invariance-weight None "
    "--weight-per-pair None.",
)
_BASELINE_OPTIONS = {
    "stem": "imagenet",
    "crop_min": 0.08,
    "crop_max": 1.0,
    "flip": 0.5,
    "batch_size": 2048,
    "optimizer": "lars",
    "final_fraction": 0.001,
    "weight_decay": 1e-6,
    "average_decay": 0.0,
    "encoder": "resnet18",
    "projector": (8192, 8192, 8192),
    "epochs": 100,
    "per_class": 260,
    "augment": "vicreg",
    "size": 224,
}
_IMAGENET20 = (
    "ImageNet (ILSVRC 2012) as class folders (--data folder:DIR), of which "
    "the first 260 files of each class are taken, in the order of their names. "
    "TensorFlow Datasets keeps the images in another order, and so are other "
    "images. For images without classes: --per-class None. The part that the "
    "authors tune on: --test each:261:521:folder:DIR in kssl evaluate."
)


def _baseline(method, name, summary, source, **options):
    """A method that SFRIK's authors trained beside theirs on a fifth of ImageNet."""
    return Preset(
        name=f"{method}_resnet18_imagenet20",
        description=f"{name} as SFRIK's authors trained it for comparison, on a fifth "
        f"of ImageNet: {summary}.",
        recipe=Recipe(method=method, **_BASELINE_OPTIONS, **options),
        data=_IMAGENET20,
        licence=f"{_RECIPE_LICENCE} {_IMAGENET_LICENCE}",
        source=(source, *_SFRIK),
        **_RESNET18,
        limits=(_NO_NUMBER, "The authors trained on 4 GPUs of 32 GB."),
    )


PUBLISHED = (
    Preset(
        name="ssl_hsic_resnet50_imagenet",
        description="SSL-HSIC as published: ResNet-50, ImageNet, 1000 epochs, with a "
        "target network.",
        recipe=_SSL_HSIC_RECIPE,
        data=_IMAGENET,
        licence=f"{_RECIPE_LICENCE} {_IMAGENET_LICENCE}",
        source=(*_SSL_HSIC, *_SSL_HSIC_CODE),
        **_RESNET50,
        results=(
            Result(
                protocol="linear classifier on frozen features, 90 epochs, SGD "
                "(the released program; its README says around 74.8%)",
                data="ImageNet: training images, validation images",
                score="top-1",
                mean=0.748,
                is_published=True,
            ),
        ),
        limits=(*_SSL_HSIC_LIMITS, "The authors trained on 128 Cloud TPU v2/v3."),
    ),
    Preset(
        name="ssl_hsic_resnet50_imagenet_no_target",
        description="SSL-HSIC without target network and predictor: ResNet-50, "
        "ImageNet, 1000 epochs.",
        recipe=Recipe(**{**vars(_SSL_HSIC_RECIPE), "target": False}),
        data=_IMAGENET,
        licence=f"{_RECIPE_LICENCE} {_IMAGENET_LICENCE}",
        source=_SSL_HSIC,
        **_RESNET50,
        limits=(
            "No accuracy is given: the paper is said to report a top-1 of about 72% "
            "by a linear classifier, which we have not verified.",
            "The released program does not contain this variant; all settings but the "
            "target network are those of the variant with it.",
            *_SSL_HSIC_LIMITS[1:],
        ),
    ),
    Preset(
        name="ssl_hsic_resnet10_digits_test",
        description="SSL-HSIC with all its parts at a small size, on the built-in "
        "images: a test of an installation in about a minute.",
        recipe=Recipe(
            method="ssl_hsic",
            data="builtin:digits:train",
            encoder="resnet10",
            width=0.25,
            stem="cifar",
            padding="same",
            projector=(512, 128),
            augment="byol",
            size=20,
            crop_min=0.2,
            crop_max=0.5,
            flip=0.0,
            epochs=2,
            batch_size=64,
            optimizer="lars",
            base_learning_rate=0.4,
            final_fraction=0.0,
            target=True,
            target_decay=0.99,
            estimator="random_features",
            num_features=512,
            average_decay=0.99,
        ),
        data="The built-in images of handwritten digits, 5,188 of them "
        "(--data builtin:digits:train, the default).",
        licence="Recipe: Apache-2.0, as this library. There are no weights. Data: "
        "scikit-learn's digits, from the UCI repository, CC BY 4.0.",
        source=_SSL_HSIC,
        parameters=307_536,
        num_features=128,
        limits=(
            "Two epochs teach an encoder next to nothing: no accuracy is given. Use "
            "kssl quickstart to see learning.",
        ),
    ),
    Preset(
        name="sfrik_resnet50_imagenet",
        description="SFRIK as published: ResNet-50, ImageNet, 200 epochs, embeddings "
        "of 32,768 coordinates; with the authors' weights.",
        recipe=Recipe(
            **_SFRIK_OPTIONS,
            data="tfds:imagenet2012:train",
            encoder="resnet50",
            projector=(8192, 8192, 32768),
            augment="vicreg",
            size=224,
            epochs=200,
            base_learning_rate=0.4,
            invariance_weight=40000.0,
        ),
        data=_IMAGENET,
        licence="Weights: published by the authors beside their program, which is "
        f"under Apache-2.0 (Copyright 2022 Valeo). {_IMAGENET_LICENCE}",
        source=_SFRIK,
        **_RESNET50,
        weights=Weights(
            "https://github.com/valeoai/sfrik/releases/download/v0.1.0/"
            "sfrik_32k_in1000_200ep_r50_backbone.pth"
        ),
        results=(
            Result(
                protocol="linear classifier on frozen features, 100 epochs, SGD (the "
                "authors' README)",
                data="ImageNet: training images, validation images",
                score="top-1",
                mean=0.703,
                is_published=True,
            ),
        ),
        limits=(
            "The weights are the authors' PyTorch file, converted when it is loaded.",
            "The authors trained on 8 GPUs of 32 GB.",
            *_SFRIK_LIMITS,
        ),
    ),
    Preset(
        name="sfrik_resnet18_imagenet20",
        description="SFRIK as published for a fifth of ImageNet: ResNet-18, 100 "
        "epochs.",
        recipe=Recipe(
            **_SFRIK_RESNET18_OPTIONS, per_class=260, augment="vicreg", size=224
        ),
        data=_IMAGENET20,
        licence=f"{_RECIPE_LICENCE} {_IMAGENET_LICENCE}",
        source=_SFRIK,
        **_RESNET18,
        limits=(_NO_NUMBER, "The authors trained on 4 GPUs of 32 GB.", *_SFRIK_LIMITS),
    ),
    Preset(
        name="sfrik_resnet18_stl10",
        description="SFRIK as published for STL10: ResNet-18, views of 64 pixels, 100 "
        "epochs on the unlabelled images.",
        recipe=Recipe(
            **_SFRIK_RESNET18_OPTIONS,
            data="tfds:stl10:unlabelled",
            augment="auh",
            size=64,
        ),
        data="The 100,000 unlabelled images of STL10, prepared on this machine by "
        "TensorFlow Datasets (--data tfds:stl10:unlabelled, the default).",
        licence=f"{_RECIPE_LICENCE} STL10 is taken from ImageNet: {_IMAGENET_LICENCE}",
        source=_SFRIK,
        **_RESNET18,
        limits=(_NO_NUMBER, "The authors trained on one GPU.", *_SFRIK_LIMITS),
    ),
    _baseline(
        "simclr",
        "SimCLR",
        "ResNet-18, 100 epochs, temperature 0.15",
        "Chen, Kornblith, Norouzi, Hinton: A Simple Framework for Contrastive Learning "
        "of Visual Representations, ICML 2020, https://arxiv.org/abs/2002.05709",
        base_learning_rate=0.8,
        temperature=0.15,
    ),
    _baseline(
        "vicreg",
        "VICReg",
        "ResNet-18, 100 epochs, weights 10, 10 and 1",
        "Bardes, Ponce, LeCun: VICReg: Variance-Invariance-Covariance Regularization "
        "for Self-Supervised Learning, ICLR 2022, https://arxiv.org/abs/2105.04906",
        base_learning_rate=0.7,
        invariance_weight=10.0,
        weight_per_pair=False,
        variance_weight=10.0,
        covariance_weight=1.0,
    ),
    _baseline(
        "auh",
        "Alignment and uniformity",
        "ResNet-18, 100 epochs, weights 3000 and 1, scale 2.5",
        "Wang, Isola: Understanding Contrastive Representation Learning through "
        "Alignment and Uniformity on the Hypersphere, ICML 2020, "
        "https://arxiv.org/abs/2005.10242",
        base_learning_rate=1.0,
        invariance_weight=3000.0,
        weight_per_pair=False,
    ),
)
