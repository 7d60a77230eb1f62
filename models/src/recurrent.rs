//! Classifiers of sequences by `RNN` (Elman 1990), `LSTM` (Hochreiter and Schmidhuber 1997) and `GRU` (Cho et al. 2014).

use secateur_engine::Model;
use secateur_engine::expr::{Call, Ex};
use secateur_engine::ir::{Attr, DType, Dim, Type};

use crate::blocks::{cast, dropout, ints, squeeze, transpose};
use crate::net::Net;
use crate::{Arch, ArchError, Draft, Random, Setting, Settings};

/// `logits: [batch, classes]` of `input_ids` and `attention_mask: [batch, length]`, which is 1 for the tokens and 0 for what
/// comes after them; or of `x: [batch, length, features]`.
pub(crate) struct Recurrent {
    name: &'static str,
    about: &'static str,
    op: &'static str,
    /// Products of each input.
    gates: usize,
}

/// Gates that update and reset the state.
pub(crate) static GRU: Recurrent = Recurrent {
    name: "gru",
    about: "a classifier of sequences by gated recurrent units",
    op: "GRU",
    gates: 3,
};

/// Gates to a second state.
pub(crate) static LSTM: Recurrent = Recurrent {
    name: "lstm",
    about: "a classifier of sequences by long short-term memory",
    op: "LSTM",
    gates: 4,
};

/// One function of input and state.
pub(crate) static RNN: Recurrent = Recurrent {
    name: "rnn",
    about: "a classifier of sequences by a plain recurrent layer",
    op: "RNN",
    gates: 1,
};

impl Arch for Recurrent {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::classes(2),
                Setting::vocabulary("words that it knows; 0 for rows of numbers", 10_000, 0),
                Setting::length(64),
                Setting::number("features", "numbers of a token", 64, 1..=65536),
                Setting::hidden("elements of the state", 128),
                Setting::layers(1),
                Setting::dropout(),
            ]
        }
    }

    fn write(&self, set: &Settings, random: Random) -> Result<Model, ArchError> {
        let mut d = Draft::new(self.name);
        let [words, features, hidden] = ["vocabulary", "features", "hidden"].map(|s| set.get(s));
        let dims = [Dim::symbol("batch"), set.get("length").into()];
        let (x, mask) = match words {
            0 => (d.input("x", [&dims[..], &[features.into()]].concat()), None),
            _ => {
                let mut input = |name| d.input_of(name, Type::tensor(DType::I64, dims.clone()));
                (input("input_ids"), Some(input("attention_mask")))
            }
        };
        let model = d.network(random, |n| {
            let x = match mask {
                Some(_) => n
                    .normal("tokens.weight", &[words, features], 0.0, 1.0)
                    .op("Gather", &[n.at(x)]),
                None => n.at(x),
            };
            let lengths = mask.map(|mask| lengths(n.at(mask)));
            let layer = |x, i: usize, from| self.layer(n, x, lengths, &format!("layers.{i}"), [from, hidden]);
            let mut y = layer(transpose(x, &[1, 0, 2]), 0, features);
            for i in 1..set.get("layers") {
                y = layer(dropout(squeeze(y[0], 1), set.share("dropout")), i, hidden);
            }
            let last = dropout(squeeze(y[1], 0), set.share("dropout"));
            let logits = n.dense(last, "fc", [hidden, set.get("classes")]);
            vec![("logits".into(), logits)]
        })?;
        Ok(model)
    }
}

/// How many tokens `mask: [batch, length]` has.
fn lengths(mask: Ex<'_>) -> Ex<'_> {
    let sum = mask.with(
        "ReduceSum",
        &[ints(mask, &[1])],
        vec![Attr::new("keepdims", 0i64)],
    );
    cast(sum, DType::I32)
}

impl Recurrent {
    /// A layer of `x: [length, batch, from]`: its states `[length, 1, batch, hidden]` and the last of each sequence.
    fn layer<'a>(
        &self,
        n: &Net<'a>,
        x: Ex<'a>,
        lengths: Option<Ex<'a>>,
        name: &str,
        [from, hidden]: [usize; 2],
    ) -> Vec<Ex<'a>> {
        let bound = 1.0 / (hidden as f64).sqrt();
        let rows = self.gates * hidden;
        let draw = |part: &str, dims: &[usize]| n.uniform(format!("{name}.{part}"), dims, bound);
        let w = draw("input.weight", &[1, rows, from]);
        let r = draw("recurrent.weight", &[1, rows, hidden]);
        let b = draw("bias", &[1, 2 * rows]);
        x.call(Call {
            domain: "",
            op: self.op,
            inputs: &[
                Some(x.id),
                Some(w.id),
                Some(r.id),
                Some(b.id),
                lengths.map(|l| l.id),
            ],
            attrs: vec![Attr::new("hidden_size", hidden as i64)],
            outputs: 2,
        })
    }
}
