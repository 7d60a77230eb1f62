//! What training says in the end.

use secateur::train::{EpochRow, Scores, Trainer};
use serde_json::{Value, json};

use super::super::table::Table;

/// What was measured.
pub(super) struct Shown {
    pub(super) rows: Vec<EpochRow>,
    test: Option<Scores>,
    /// Whether the last term is an accuracy.
    classes: bool,
    stopped: bool,
    /// That of the epoch whose weights are written.
    row: Option<EpochRow>,
}

/// An epoch in a line.
pub(super) fn line(row: &EpochRow, classes: bool) -> String {
    let of = |s: &Scores| match s.terms.last() {
        Some(x) if classes => format!("loss {:.4}, {:.2} %", s.loss, 100.0 * x),
        _ => format!("loss {:.4}", s.loss),
    };
    let validation = row.validation.as_ref();
    let validation = validation.map_or(String::new(), |v| format!("; validation {}", of(v)));
    format!(
        "epoch {}: {}{validation}; {:.1} s",
        row.epoch,
        of(&row.train),
        row.seconds
    )
}

impl Shown {
    pub(super) fn of(trainer: &Trainer, test: Option<Scores>, classes: bool) -> Shown {
        Shown {
            rows: trainer.rows().to_vec(),
            test,
            classes,
            stopped: trainer.stopped(),
            row: trainer.row().cloned(),
        }
    }

    /// The share that is right, where labels are classes.
    pub(super) fn accuracy(&self, scores: &Scores) -> Option<f64> {
        scores.terms.last().copied().filter(|_| self.classes)
    }

    fn scores(&self, scores: Option<&Scores>) -> [String; 2] {
        let percent = |x: f64| format!("{:.2} %", 100.0 * x);
        let accuracy = scores.and_then(|s| self.accuracy(s));
        [
            scores.map_or("-".into(), |s| format!("{:.4}", s.loss)),
            accuracy.map_or("-".into(), percent),
        ]
    }

    pub(super) fn table(&self) -> String {
        let mut table = Table::new(&[
            "epoch",
            "loss",
            "accuracy",
            "validation loss",
            "accuracy",
            "s",
            "ms/step",
        ]);
        let shown = self.rows.len().saturating_sub(ROWS);
        for row in &self.rows[shown..] {
            let [loss, accuracy] = self.scores(Some(&row.train));
            let [val_loss, val_accuracy] = self.scores(row.validation.as_ref());
            let (seconds, step) = (format!("{:.1}", row.seconds), format!("{:.2}", row.step_ms));
            table.row([
                row.epoch.to_string(),
                loss,
                accuracy,
                val_loss,
                val_accuracy,
                seconds,
                step,
            ]);
        }
        let test = self.test.as_ref().map(|s| {
            let [loss, accuracy] = self.scores(Some(s));
            format!("\n\ntest: loss {loss}, accuracy {accuracy}")
        });
        let stopped = if self.stopped {
            "\n\nended early: the validation loss became no smaller"
        } else {
            ""
        };
        format!("{table}{stopped}{}", test.unwrap_or_default())
    }

    /// Figures of the end.
    pub(super) fn last(&self) -> Value {
        let of = |s: Option<&Scores>| s.map(|s| json!({"loss": s.loss, "accuracy": self.accuracy(s)}));
        let row = self.row.as_ref();
        json!({
            "epochs": self.rows.len(),
            "epoch": row.map(|r| r.epoch),
            "train": of(row.map(|r| &r.train)),
            "validation": of(row.and_then(|r| r.validation.as_ref())),
            "test": of(self.test.as_ref()),
        })
    }

    pub(super) fn json(&self) -> Value {
        let epoch = |r: &EpochRow| {
            let val = r.validation.as_ref();
            json!({
                "epoch": r.epoch,
                "rate": r.rate,
                "loss": r.train.loss,
                "accuracy": self.accuracy(&r.train),
                "val_loss": val.map(|v| v.loss),
                "val_accuracy": val.and_then(|v| self.accuracy(v)),
                "seconds": r.seconds,
                "step_ms": r.step_ms,
            })
        };
        let mut steps: Vec<f64> = self.rows.iter().map(|r| r.step_ms).collect();
        let test = self.test.as_ref();
        json!({
            "model": null,
            "epochs": self.rows.iter().map(epoch).collect::<Vec<_>>(),
            "step_ms": (!steps.is_empty()).then(|| super::super::timing::median(&mut steps)),
            "test": test.map(|s| json!({"loss": s.loss, "accuracy": self.accuracy(s)})),
            "stopped_early": self.stopped,
        })
    }
}

/// Rows of the table; all are in the JSON and the curves.
const ROWS: usize = 20;
