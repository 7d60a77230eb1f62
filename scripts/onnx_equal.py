#!/usr/bin/env python3
"""Says whether two ONNX files are equal as protobuf messages, and their external data byte for byte.

    onnx_equal.py A B [--any-location]      needs onnx 1.22

Equal means: the same fields are present (a field set to its default is not an absent one), floats have the same bits,
repeated fields the same order, and unknown fields the same numbers, types and contents. Exit status: 0 equal; 1 not,
with the path of the first difference; 2 a file cannot be read.
"""
import argparse
import struct
import sys
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.unknown_fields import UnknownFieldSet

CHUNK = 1 << 24
DTYPES = {
    Field.TYPE_FLOAT: np.float32,
    Field.TYPE_DOUBLE: np.float64,
    Field.TYPE_INT32: np.int32,
    Field.TYPE_INT64: np.int64,
    Field.TYPE_UINT64: np.uint64,
    Field.TYPE_ENUM: np.int32,
}


class Different(Exception):
    """The first difference: where, and what."""


def short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def join(where: str, field: str) -> str:
    return f"{where}.{field}" if where else field


def compare_bytes(where: str, a: bytes, b: bytes, start: int = 0) -> None:
    if a == b:
        return
    if len(a) != len(b):
        raise Different(f"{where}: {len(a)} bytes against {len(b)}")
    at = next(i for i, (x, y) in enumerate(zip(a, b)) if x != y)
    raise Different(f"{where}: byte {start + at} is {a[at]:#04x} against {b[at]:#04x}")


def bits(field: Field, value):
    if field.type == Field.TYPE_FLOAT:
        return struct.pack("<f", value)
    if field.type == Field.TYPE_DOUBLE:
        return struct.pack("<d", value)
    return value


def unknown(message) -> list:
    def entries(fields) -> list:
        # A group's data is again a set of fields.
        return [
            (f.field_number, f.wire_type, entries(f.data) if isinstance(f.data, UnknownFieldSet) else f.data)
            for f in fields
        ]

    return entries(UnknownFieldSet(message))


class Comparison:
    def __init__(self, a: Path, b: Path, any_location: bool) -> None:
        self.folders = a.parent, b.parent
        self.any_location = any_location

    def messages(self, where: str, a, b) -> None:
        fields = [{field.number: (field, value) for field, value in m.ListFields()} for m in (a, b)]
        external = self.is_external(a) and self.is_external(b)
        for number in sorted(fields[0].keys() | fields[1].keys()):
            (field, x), (_, y) = (f.get(number, (None, None)) for f in fields)
            if x is None or y is None:
                name = (field or fields[1][number][0]).name
                raise Different(f"{join(where, name)}: only in {'B' if x is None else 'A'}")
            if not (external and self.any_location and field.name == "external_data"):
                self.fields(join(where, field.name), field, x, y)
        if unknown(a) != unknown(b):
            raise Different(f"{where or 'model'}: unknown fields {short(unknown(a))} against {short(unknown(b))}")
        if external:
            self.external(f"{where} external bytes", a, b)

    def fields(self, where: str, field: Field, x, y) -> None:
        if not field.is_repeated:
            self.values(where, field, x, y)
            return
        dtype = DTYPES.get(field.type)
        if dtype and np.array(x, dtype).tobytes() == np.array(y, dtype).tobytes():
            return
        for i, (u, v) in enumerate(zip(x, y)):
            name = getattr(u, "name", "") if field.message_type else ""
            self.values(f"{where}[{i}]" + (f"<{name}>" if name else ""), field, u, v)
        if len(x) != len(y):
            raise Different(f"{where}: {len(x)} elements against {len(y)}")

    def values(self, where: str, field: Field, x, y) -> None:
        if field.message_type:
            self.messages(where, x, y)
        elif field.type == Field.TYPE_BYTES:
            compare_bytes(where, x, y)
        elif bits(field, x) != bits(field, y):
            raise Different(f"{where}: {short(x)} against {short(y)}")

    @staticmethod
    def is_external(message) -> bool:
        return isinstance(message, onnx.TensorProto) and message.data_location == onnx.TensorProto.EXTERNAL

    def external(self, where: str, a: onnx.TensorProto, b: onnx.TensorProto) -> None:
        (file_a, length_a), (file_b, length_b) = map(self.open_external, self.folders, (a, b))
        with file_a, file_b:
            if length_a != length_b:
                raise Different(f"{where}: {length_a} bytes against {length_b}")
            for start in range(0, length_a, CHUNK):
                size = min(CHUNK, length_a - start)
                compare_bytes(where, file_a.read(size), file_b.read(size), start)

    @staticmethod
    def open_external(folder: Path, tensor: onnx.TensorProto):
        """The file, at the tensor's first byte, and the tensor's length in bytes."""
        entries = {e.key: e.value for e in tensor.external_data}
        path = folder / entries["location"]
        offset = int(entries.get("offset", 0))
        rest = path.stat().st_size - offset
        length = int(entries.get("length", rest))
        if not 0 <= length <= rest:
            raise OSError(f"{path} ends before the data of {tensor.name!r}")
        file = path.open("rb")
        file.seek(offset)
        return file, length


def main() -> int:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("a", type=Path)
    args.add_argument("b", type=Path)
    args.add_argument("--any-location", action="store_true", help="external data may lie in another file or place")
    args = args.parse_args()
    try:
        a, b = (onnx.load(str(path), load_external_data=False) for path in (args.a, args.b))
        Comparison(args.a, args.b, args.any_location).messages("", a, b)
    except Different as difference:
        print(f"different: {difference}")
        return 1
    except Exception as error:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print("equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
