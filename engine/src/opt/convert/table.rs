//! What changes for which operator between a version and the one before.

use super::site::{Done, Site};
use super::{body, form, inputs, meaning, resize};
use crate::ir::{AttrValue, Node};

/// What happens to a node on its way.
#[derive(Clone, Copy)]
pub(super) enum Change {
    /// Nothing.
    Same,
    /// These attributes go, whatever they say.
    Free(&'static [&'static str]),
    /// These attributes go; they must say nothing else.
    Plain(&'static [(&'static str, Plain)]),
    /// Another name.
    Name(&'static str),
    /// No way.
    Never(&'static str),
    /// The operator's body, as the other version has not got it.
    Body,
    /// More than that.
    Do(fn(&mut Site, Node) -> Done),
}

/// What an attribute says where it says nothing.
#[derive(Clone, Copy)]
pub(super) enum Plain {
    Int(i64),
    Text(&'static str),
    Ones,
}

/// One row: the operators, the version that brought the change, and what to do there and back.
pub(super) struct Row {
    pub(super) at: i64,
    pub(super) ops: &'static [&'static str],
    pub(super) up: Change,
    pub(super) down: Change,
}

const fn row(at: i64, ops: &'static [&'static str], up: Change, down: Change) -> Row {
    Row { at, ops, up, down }
}

use Change::{Body, Do, Free, Name, Never, Plain as Only, Same};
use Plain::{Int, Ones, Text};

const SOFTMAX: &[&str] = &["Hardmax", "LogSoftmax", "Softmax"];
const RECURRENT: &[&str] = &["GRU", "LSTM", "RNN"];
const REDUCTIONS: &[&str] = &[
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
];
const BROADCASTING: &[&str] = &[
    "Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor",
];
const SCATTERING: &[&str] = &["ScatterElements", "ScatterND"];
/// Operators whose axes may be negative since opset 11; one row for those that have no other there.
const SIGNED: &[&str] = &[
    "ArgMax",
    "ArgMin",
    "Compress",
    "Concat",
    "Flatten",
    "Gather",
    "Hardmax",
    "LogSoftmax",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Softmax",
    "Split",
    "Squeeze",
    "Unsqueeze",
];

/// Versions below the oldest that is written have no way down.
#[rustfmt::skip]
pub(super) static ROWS: &[Row] = &[
    row(2, &["Pad"], Do(form::paddings), Same),
    row(2, &["Split"], Do(form::split_input), Same),
    row(2, &["GlobalLpPool", "LpPool"], Do(form::whole_p), Same),
    row(4, &["Concat"], Do(form::concat_axis), Same),
    row(5, &["Reshape"], Do(inputs::reshape), Same),
    row(6, &["Cast"], Do(form::cast_name), Same),
    row(6, &["Tile"], Do(form::tile), Same),
    row(6, &["Selu"], Do(form::selu), Same),
    row(7, BROADCASTING, Do(form::broadcast), Same),
    row(7, &["PRelu"], Do(form::slope), Same),
    row(7, &["Gemm"], Free(&["broadcast"]), Same),
    row(7, &["BatchNormalization"], Do(form::inference), Same),
    row(7, &["Dropout"], Do(form::inference), Same),
    row(7, RECURRENT, Free(&["output_sequence"]), Same),
    row(7, &["Upsample"], Do(resize::two_scales), Same),
    row(8, &["Max", "Mean", "Min", "Sum"], Same, Do(form::same_shapes)),
    row(8, &["MaxPool"], Same, Do(form::no_indices)),
    row(9, &["BatchNormalization"], Only(&[("spatial", Int(1))]), Same),
    row(9, &["Upsample"], Do(inputs::upsample), Do(inputs::upsample_back)),
    row(9, &["Scan"], Never("it has a batch axis and lengths there"), Never("it has a batch axis and lengths there")),
    row(10, &["AveragePool"], Same, Only(&[("ceil_mode", Int(0))])),
    row(10, &["MaxPool"], Same, Only(&[("ceil_mode", Int(0)), ("dilations", Ones)])),
    row(10, &["Dropout"], Do(form::mask), Do(form::mask)),
    row(10, &["Slice"], Do(inputs::slice), Do(inputs::slice_back)),
    row(10, &["TopK"], Do(inputs::top), Do(inputs::top_back)),
    row(10, &["Upsample"], Name("Resize"), Same),
    row(10, &["Resize"], Same, Do(resize::upsample)),
    row(11, &["Clip"], Do(inputs::clip), Do(inputs::clip_back)),
    row(11, &["Pad"], Do(inputs::pad), Do(inputs::pad_back)),
    row(11, &["Resize"], Do(resize::explicit), Do(resize::simple)),
    row(11, &["DepthToSpace"], Same, Only(&[("mode", Text("DCR"))])),
    row(11, &["Gemm"], Same, Do(form::addend)),
    row(11, &["Scatter"], Name("ScatterElements"), Same),
    row(11, &["ScatterElements"], Same, Name("Scatter")),
    row(11, &["TopK"], Same, Do(form::greatest)),
    row(11, &["Constant"], Same, Do(form::dense)),
    row(11, &["OneHot"], Same, Do(form::not_negative)),
    row(11, &["Slice"], Same, Do(form::slice_axes)),
    row(11, SIGNED, Same, Do(form::unsigned)),
    row(12, &["ArgMax", "ArgMin"], Same, Only(&[("select_last_index", Int(0))])),
    row(12, &["Constant"], Same, Do(form::one_value)),
    row(12, &["Dropout"], Do(inputs::dropout), Do(inputs::dropout_back)),
    row(12, &["GatherND"], Same, Only(&[("batch_dims", Int(0))])),
    row(12, &["Pow"], Same, Do(form::exponent)),
    row(12, &["GreaterOrEqual", "LessOrEqual"], Same, Do(meaning::or_equal)),
    row(13, &["Squeeze", "Unsqueeze"], Do(inputs::axes), Do(inputs::axes_back)),
    row(13, &["ReduceSum"], Do(inputs::axes), Do(inputs::reduced_back)),
    row(13, SOFTMAX, Do(meaning::one_axis), Do(meaning::trailing_axes)),
    row(13, &["Split"], Do(inputs::split), Do(inputs::split_back)),
    row(13, &["QuantizeLinear", "DequantizeLinear"], Same, Do(form::one_scale)),
    row(13, &["Resize"], Do(resize::left_out), Do(resize::empty)),
    row(14, &["BatchNormalization"], Do(form::one_output), Do(form::no_training)),
    row(14, RECURRENT, Same, Only(&[("layout", Int(0))])),
    row(14, &["Reshape"], Same, Do(form::no_zero)),
    row(14, &["HardSwish"], Same, Do(meaning::hard_swish)),
    row(15, &["Shape"], Same, Do(meaning::whole_shape)),
    row(15, &["CastLike"], Same, Do(form::cast_to)),
    row(16, SCATTERING, Same, Only(&[("reduction", Text("none"))])),
    row(16, &["RoiAlign"], Do(form::roi_mode), Do(form::roi_mode_back)),
    row(18, REDUCTIONS, Do(inputs::axes), Do(inputs::reduced_back)),
    row(18, &["Pad"], Same, Do(inputs::pad_axes)),
    row(18, &["Split"], Do(form::outputs), Do(inputs::equal_parts)),
    row(18, &["Resize"], Same, Do(resize::all_axes)),
    row(18, SCATTERING, Same, Do(form::scatter_18)),
    row(18, &["LpPool"], Same, Only(&[("ceil_mode", Int(0)), ("dilations", Ones)])),
    row(18, &["OptionalGetElement", "OptionalHasElement"], Same, Do(form::optional)),
    row(19, &["AveragePool"], Same, Only(&[("dilations", Ones)])),
    row(19, &["Cast"], Same, Free(&["saturate"])),
    row(19, &["CastLike"], Same, Free(&["saturate"])),
    row(19, &["QuantizeLinear"], Same, Free(&["saturate"])),
    row(19, &["Pad"], Same, Do(form::no_wrap)),
    row(19, &["Resize"], Same, Do(resize::not_symmetric)),
    row(20, &["DFT"], Do(inputs::dft), Do(inputs::dft_back)),
    row(20, &["GridSample"], Do(form::grid_mode), Do(form::grid_mode_back)),
    row(21, &["QuantizeLinear"], Same, Do(form::quantised_type)),
    row(21, &["DequantizeLinear"], Same, Only(&[("block_size", Int(0))])),
    row(21, &["GroupNormalization"], Do(meaning::per_channel), Do(meaning::group_norm)),
    row(23, &["DequantizeLinear"], Same, Only(&[("output_dtype", Int(0))])),
    row(23, &["QuantizeLinear"], Same, Only(&[("precision", Int(0))])),
    row(24, &["Cast", "CastLike"], Same, Free(&["round_mode"])),
    row(24, &["Attention"], Same, Do(form::six_inputs)),
    row(27, &["Range"], Same, Free(&["stash_type"])),
];

impl Change {
    /// Writes what becomes of `node`.
    pub(super) fn apply(self, s: &mut Site, mut node: Node) -> Done {
        match self {
            Same => s.put(node),
            Free(names) => {
                node.attrs.retain(|a| !names.contains(&&*a.name));
                s.put(node)
            }
            Only(attrs) => {
                for (name, plain) in attrs {
                    nothing(&mut node, name, *plain)?;
                }
                s.put(node)
            }
            Name(op) => {
                node.op = op.into();
                s.put(node)
            }
            Never(why) => Err(why.into()),
            Body => body::written_out(s, node),
            Do(change) => change(s, node),
        }
    }
}

/// Takes away an attribute that must say nothing.
pub(super) fn nothing(node: &mut Node, name: &str, plain: Plain) -> Done {
    let Some(value) = node.attr(name) else {
        return Ok(());
    };
    let fits = match (plain, value) {
        (Int(want), AttrValue::Int(x)) => x.unwrap_or(0) == want,
        (Text(want), AttrValue::Bytes(x)) => x.as_deref().unwrap_or(&[]) == want.as_bytes(),
        (Ones, AttrValue::Ints(x)) => x.iter().all(|&x| x == 1),
        _ => false,
    };
    match fits {
        true => {
            node.attrs.retain(|a| &*a.name != name);
            Ok(())
        }
        false => Err(format!(
            "attribute {name:?} is not what it is where it is left out"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order_and_none_is_there_twice() {
        assert!(ROWS.is_sorted_by_key(|r| r.at));
        for (i, a) in ROWS.iter().enumerate() {
            for b in &ROWS[i + 1..] {
                let both = a.ops.iter().find(|op| b.ops.contains(op));
                assert!(a.at != b.at || both.is_none(), "{both:?} at {}", a.at);
            }
        }
    }
}
