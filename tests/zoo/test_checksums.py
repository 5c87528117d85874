import re

from xinc_captum.zoo import checksums


def test_each_is_a_sum_of_its_own():
    sums = [
        *checksums.SKIMAGE.values(),
        *checksums.FOOLBOX.values(),
        *checksums.VIDEOS.values(),
        checksums.VOC,
        checksums.QUOKKA,
        checksums.MNIST_5K,
        *checksums.FASHION_MNIST.values(),
    ]
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in sums)
    assert len(set(sums)) == len(sums)
