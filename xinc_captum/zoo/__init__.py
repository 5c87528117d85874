"""Zoo: trained classifiers and real photos, out of packages that are on PyPI."""

from .assets import AssetError, asset, requirements
from .carphone import carphone_nerv
from .classifiers import Classifier, Normalise
from .efficientnet import efficientnet_lite0, efficientnet_lite1
from .named import classifier
from .photos import Photo, foolbox_photos, photo, photo_names, quokka_photo, skimage_photo, voc_photo
from .squeezenet import squeezenet1_1
from .videos import Video, video, video_names

__all__ = [
    "AssetError",
    "Classifier",
    "Normalise",
    "Photo",
    "Video",
    "asset",
    "carphone_nerv",
    "classifier",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "foolbox_photos",
    "photo",
    "photo_names",
    "quokka_photo",
    "requirements",
    "skimage_photo",
    "squeezenet1_1",
    "video",
    "video_names",
    "voc_photo",
]
