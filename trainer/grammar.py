"""The grammar of an agent's response schema, as vLLM enforces it (xgrammar, no free white space)."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import xgrammar
from transformers import PreTrainedTokenizerBase


class Grammars:
    """Compiles schemas for one vocabulary."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocabulary)
        compiler = xgrammar.GrammarCompiler(info)
        # As vLLM compiles a schema with `disable_any_whitespace`: no blanks, not even after a colon.
        self._compiled = lru_cache(maxsize=16)(
            lambda schema: compiler.compile_json_schema(schema, any_whitespace=False, separators=(",", ":"))
        )

    def matcher(self, schema: dict[str, Any]) -> Any:
        """A fresh matcher: it says which tokens may come next, and is told which came."""
        return xgrammar.GrammarMatcher(self._compiled(json.dumps(schema)))

    def bitmask(self, rows: int) -> torch.Tensor:
        """Room for the allowed tokens of `rows` positions, one bit each; all allowed."""
        bits: torch.Tensor = xgrammar.allocate_token_bitmask(rows, self.vocabulary)
        return bits

    def allowed(self, schema: dict[str, Any], completion: Sequence[int]) -> torch.Tensor:
        """Bits (length, vocabulary / 32) of what was allowed where each token of `completion` was drawn."""
        matcher, bits = self.matcher(schema), self.bitmask(len(completion))
        for position, token in enumerate(completion):
            if matcher.is_terminated():
                break
            matcher.fill_next_token_bitmask(bits, position)
            matcher.accept_token(token)
        return bits
