"""Prints the rows of engine/src/opt/convert/types.rs: the element types that versions of ONNX's operators added for their
first input, as bits numbered by `TensorProto.DataType`.

usage: opset_types.py > engine/src/opt/convert/types.rs
"""

import collections

import onnx
from onnx import defs

print("""//! The element types that versions of ONNX's operators added for their first input, as bits numbered by
//! `TensorProto.DataType`. Written by `scripts/opset_types.py`.

/// Operator, version, types.
pub(super) static TYPES: &[(&str, i64, u32)] = &[""")


def mask(schema):
    if not schema.inputs:
        return 0
    bits = 0
    for t in schema.inputs[0].types:
        if t.startswith("tensor("):
            name = t[7:-1].upper()
            bits |= 1 << getattr(onnx.TensorProto, name)
    return bits


by = collections.defaultdict(dict)
for s in defs.get_all_schemas_with_history():
    if s.domain == "" and not s.deprecated:
        by[s.name][s.since_version] = s
for name in sorted(by):
    versions = sorted(by[name])
    for old, new in zip(versions, versions[1:]):
        added = mask(by[name][new]) & ~mask(by[name][old])
        if added and new > 7:
            print(f'    ("{name}", {new}, {added:#x}),')
print("];")
