"""Trained networks, photos, videos and data sets, read from packages on PyPI."""

from .assets import AssetError, asset
from .classifiers import classifier, efficientnet_lite0, efficientnet_lite1, squeezenet1_1
from .dinov2 import Backbone, dinov2_vits14
from .generators import EYE_COLOURS, dcgan_faces, omniart_eyes
from .mnist import (
    LabelledImages,
    fashion_mnist,
    mnist_cnn,
    mnist_convnet,
    mnist_digits,
    mnist_generator,
    mnist_nern,
    mnist_trans_inr,
    small_convnet,
    train_small_convnet,
)
from .photos import Photo, foolbox_photos, photo, photo_names, skimage_photo
from .videos import Video, carphone_nerv, video, video_names

__all__ = [
    "EYE_COLOURS",
    "AssetError",
    "Backbone",
    "LabelledImages",
    "Photo",
    "Video",
    "asset",
    "carphone_nerv",
    "classifier",
    "dcgan_faces",
    "dinov2_vits14",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "fashion_mnist",
    "foolbox_photos",
    "mnist_cnn",
    "mnist_convnet",
    "mnist_digits",
    "mnist_generator",
    "mnist_nern",
    "mnist_trans_inr",
    "omniart_eyes",
    "photo",
    "photo_names",
    "skimage_photo",
    "small_convnet",
    "squeezenet1_1",
    "train_small_convnet",
    "video",
    "video_names",
]
