"""Weights of others as encoders, and encoders as weights of others.

PyTorch's ResNets, KerasHub's ResNet backbones, and the checkpoints of SSL-HSIC's
authors. Files are read as data: nothing in them is run, whatever it says.
"""

from keras_kssl.convert.haiku_resnet import from_ssl_hsic_checkpoint
from keras_kssl.convert.hub_resnet import (
    from_keras_hub,
    keras_hub_image_converter,
    to_keras_hub,
)
from keras_kssl.convert.torch_resnet import (
    from_torch_resnet,
    to_torch_state_dict,
    torch_file,
)

__all__ = [
    "from_keras_hub",
    "from_ssl_hsic_checkpoint",
    "from_torch_resnet",
    "keras_hub_image_converter",
    "to_keras_hub",
    "to_torch_state_dict",
    "torch_file",
]
