"""Text-only models: their processor is a tokenizer."""

from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin


class TextProcessor(ProcessorMixin):
    """A tokenizer in the place of a processor; it takes no pictures.

    A tokenizer without a padding token pads with its end token; what is padding is told by the mask.
    """

    tokenizer: PreTrainedTokenizerBase

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    @property
    def chat_template(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tokenizer's, None for a base model."""
        return self.tokenizer.chat_template

    def __call__(self, text: list[str], **options: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The tokens of texts."""
        return self.tokenizer(text, **options)

    def save_pretrained(self, folder: Any, **options: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The tokenizer's files."""
        return self.tokenizer.save_pretrained(folder, **options)
