"""AlexNet as Caffe trains it, without batch norm (github.com/BVLC/caffe, models/bvlc_alexnet/train_val.prototxt)."""

from earshot.networks.backbones.caffenet_plain import PlainCaffeNet


class PlainAlexNet(PlainCaffeNet):
    """`PlainCaffeNet` with the local response normalizations before the pools, and other initial biases."""

    norm_first = True
    biases = (0.0, 0.1, 0.0, 0.1, 0.1)
    hidden_bias = 0.1


BACKBONE = PlainAlexNet
