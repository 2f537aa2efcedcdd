"""The safetensors format: a JSON header and raw little-endian numbers, nothing that could run."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dnnlib.files import atomic_write

DTYPES = {"F32": torch.float32, "F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}
MAX_HEADER_BYTES = 100_000_000


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors by name and texts by name."""
    assert sys.byteorder == "little"
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    blobs, position = [], 0
    for name, tensor in tensors.items():
        blob = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        ends = [position, position + len(blob)]
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": ends}
        blobs.append(blob)
        position += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(blobs)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts by name; raises ValueError for a file that is damaged or of another kind."""
    data = path.read_bytes()
    header_bytes = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header_bytes > min(len(data) - 8, MAX_HEADER_BYTES):
        raise ValueError("it is shorter than its header says")
    header = json.loads(data[8 : 8 + header_bytes])
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    metadata = header.pop("__metadata__", {})
    body = memoryview(data)[8 + header_bytes :]
    return {name: read_tensor(name, entry, body) for name, entry in header.items()}, metadata


def read_tensor(name: str, entry: dict[str, Any], body: memoryview) -> Tensor:
    """One tensor of the file's body."""
    start, end = entry["data_offsets"]
    dtype, shape = DTYPES[entry["dtype"]], [int(n) for n in entry["shape"]]
    if not 0 <= start <= end <= len(body) or end - start != int(np.prod(shape, dtype=object)) * dtype.itemsize:
        raise ValueError(f"tensor {name} of shape {shape} does not fit bytes {start} to {end}")
    return (
        torch.frombuffer(bytearray(body[start:end]), dtype=dtype).reshape(shape)
        if end > start
        else torch.empty(shape, dtype=dtype)
    )
