"""A real server of language models for tests: llama.cpp's, from the `xllamacpp` package, in a process of its own.

Its model is tiny and random: 99 tokens (printable ASCII), two layers of width 32, some 110 kB, written where it is
needed. What it says means nothing; that it is counted, streamed, cut off and stopped is all real. It speaks OpenAI's
and Anthropic's interface. Of the latter it ignores forced tools.
"""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

import numpy
import pytest

WIDTH, HEADS, LAYERS, HIDDEN, WINDOW = 32, 4, 2, 64, 4_096
SLOTS = 8
START_S = 60.0
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "

PROGRAM = """
import os, sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], 0
params.n_ctx, params.n_parallel, params.n_gpu_layers, params.warmup = int(sys.argv[2]), int(sys.argv[3]), 0, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.n_threads_http = 64
params.model_alias = {os.path.basename(sys.argv[1])}
server = xllamacpp.Server(params)
print("at", server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""
"""It ends when its standard input does, so that it never outlives the tests."""


class LlamaServer:
    """The server process: `url` is its address, and `model` the name of what it runs."""

    model = "tiny.gguf"

    def __init__(self) -> None:
        if not _installed():
            pytest.skip("xllamacpp or gguf is not installed (pip install 'chimera[dev]')")
        self._folder = Path(tempfile.mkdtemp(prefix="chl"))
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        path = self._folder / self.model
        write_model(path)
        command = [sys.executable, "-c", PROGRAM, str(path), str(WINDOW * SLOTS), str(SLOTS)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment
            )
        try:
            self.url = self._address()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """kill -9. It does not come back."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()

    def _address(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(self._process.stdout, selectors.EVENT_READ)
            while ready.select(START_S):
                line = self._process.stdout.readline()
                if line.startswith(b"at "):
                    return line.split()[1].decode()
                if not line:
                    break
        raise AssertionError(f"llama.cpp does not start:\n{(self._folder / 'log').read_text()[-2000:]}")


def _installed() -> bool:
    from importlib.util import find_spec

    return find_spec("xllamacpp") is not None and find_spec("gguf") is not None


def write_model(path: Path, seed: int = 7) -> None:
    """A model of the llama architecture with random weights; the same for the same seed. It never ends by itself."""
    import gguf

    kinds = gguf.TokenType
    characters = ["\u2581" if code == 32 else chr(code) for code in range(32, 127)]
    tokens = ["<unk>", "<s>", "</s>", "<0x0A>", *characters]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, kinds.BYTE] + [kinds.NORMAL] * len(characters)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(WINDOW)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in _tensors(len(tokens), numpy.random.default_rng(seed)).items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(vocabulary: int, rng: numpy.random.Generator) -> dict[str, numpy.ndarray]:
    def drawn(*shape: int) -> numpy.ndarray:
        return rng.normal(0.0, 0.3, shape).astype(numpy.float32)

    ones = numpy.ones(WIDTH, numpy.float32)
    out = drawn(vocabulary, WIDTH)
    out[:4] = 0.0  # what is no character
    tensors = {"token_embd": drawn(vocabulary, WIDTH), "output_norm": ones, "output": out}
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        tensors |= {block + "attn_norm": ones, block + "ffn_norm": ones}
        tensors |= {f"{block}attn_{part}": drawn(WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
        tensors |= {block + "ffn_gate": drawn(HIDDEN, WIDTH), block + "ffn_up": drawn(HIDDEN, WIDTH)}
        tensors[block + "ffn_down"] = drawn(WIDTH, HIDDEN)
    return tensors
