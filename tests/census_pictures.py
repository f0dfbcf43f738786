"""Stand-ins for image processors that need torchvision, where none of transformers' own gives the same inputs."""

from typing import Any, ClassVar

import torch
from by_hand_models import PATCH, SIDE, pixels
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ImagesKwargs


class _Options(ImagesKwargs, total=False):
    return_row_col_info: bool


class Lfm2VlPictures(BaseImageProcessor):
    """As Lfm2VlImageProcessor: one tile of every picture, in patches.

    pixel_values [n, patches, 3 p p]; pixel_attention_mask [n, patches]; spatial_shapes [n, 2]: rows and columns of
    patches; image_rows, image_cols: of tiles; image_sizes.
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values", "pixel_attention_mask", "spatial_shapes"]
    valid_kwargs = _Options
    use_thumbnail = False
    encoder_patch_size = PATCH
    downsample_factor = 2
    tile_size = SIDE

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        side = SIDE // PATCH
        patches = []
        for picture in pixels(images):
            by_patch = picture.permute(1, 2, 0).reshape(side, PATCH, side, PATCH, 3).transpose(1, 2)
            patches.append(by_patch.reshape(side**2, -1))
        count = len(patches)
        return BatchFeature(
            {
                "pixel_values": torch.stack(patches),
                "pixel_attention_mask": torch.ones(count, side**2, dtype=torch.long),
                "spatial_shapes": torch.full((count, 2), side),
                "image_rows": [1] * count,
                "image_cols": [1] * count,
                "image_sizes": [[SIDE, SIDE]] * count,
            }
        )
