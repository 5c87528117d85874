"""Small models of each library, with random weights and without a network."""

import json

import pytest

SMALL = {
    "dinov2": ("Dinov2Config", {"image_size": 56, "patch_size": 14, "architectures": ["Dinov2Model"]}),
    "vit": (
        "ViTConfig",
        {
            "image_size": 48, "intermediate_size": 32, "architectures": ["ViTForImageClassification"],
            "id2label": {0: "cat", 1: "dog", 2: "cow"},
        },
    ),
    "segformer": (
        "SegformerConfig",
        {
            "hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "decoder_hidden_size": 16,
            "num_attention_heads": [1, 1, 2, 2], "num_labels": 5, "architectures": ["SegformerForSemanticSegmentation"],
        },
    ),
    "bert": ("BertConfig", {"intermediate_size": 16, "architectures": ["BertModel"]}),
}  # fmt: skip
TOKENS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}


@pytest.fixture
def folder(tmp_path):
    """Write a small configuration of transformers, and the configuration of its images if one is given."""
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'xinc-captum[hf]'")

    def write(kind, processor=None, **changes):
        config, settings = SMALL[kind]
        getattr(transformers, config)(**(TOKENS | settings | changes)).save_pretrained(tmp_path / kind)
        if processor is not None:
            (tmp_path / kind / "preprocessor_config.json").write_text(json.dumps(processor))
        return tmp_path / kind

    return write
