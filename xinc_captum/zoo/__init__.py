"""Zoo: trained networks, photos and other pictures, out of packages that are on PyPI."""

from .assets import AssetError, asset, requirements
from .backbones import Backbone
from .carphone import carphone_nerv
from .classifiers import Classifier, Normalise
from .dinov2 import dinov2_vits14
from .efficientnet import efficientnet_lite0, efficientnet_lite1
from .gans import EYE_COLOURS, dcgan_faces, omniart_eyes
from .labelled import LabelledImages, fashion_mnist, mnist_digits
from .mnist import mnist_cnn
from .mnist_style import mnist_convnet, mnist_generator
from .mnist_written import mnist_nern, mnist_trans_inr
from .named import classifier
from .photos import Photo, foolbox_photos, photo, photo_names, quokka_photo, skimage_photo, voc_photo
from .small_convnet import small_convnet, train_small_convnet
from .squeezenet import squeezenet1_1
from .videos import Video, video, video_names

__all__ = [
    "EYE_COLOURS",
    "AssetError",
    "Backbone",
    "Classifier",
    "LabelledImages",
    "Normalise",
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
    "quokka_photo",
    "requirements",
    "skimage_photo",
    "small_convnet",
    "squeezenet1_1",
    "train_small_convnet",
    "video",
    "video_names",
    "voc_photo",
]
