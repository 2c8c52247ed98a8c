"""Weights of others as encoders, and encoders as weights of others.

PyTorch's ResNets, KerasHub's ResNet backbones, and the checkpoints of SSL-HSIC's
authors. Files are read as data: nothing in them is run, whatever it says.
"""

from keras_kssl.convert.torch_resnet import (
    from_torch_resnet,
    to_torch_state_dict,
    torch_file,
)

__all__ = ["from_torch_resnet", "to_torch_state_dict", "torch_file"]
