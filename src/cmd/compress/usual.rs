//! What is done where nobody says.

use secateur::compress::recipe::{Budgeted, Finetune, Recover};

use super::super::recipe::INPUTS;

/// Multiply-adds that the training after a step may take, where nobody says how long it is.
const WORK: f64 = 4e12;
/// Multiply-adds that the curves may take, where there are enough examples to choose from.
const LOOK: f64 = 4e11;
/// Examples by which weights are fitted after a cut.
const FITTED: usize = 128;
/// Steps of a training.
const STEPS: (f64, f64) = (30.0, 2000.0);
/// Epochs of a training.
const EPOCHS: (u64, u64) = (1, 30);

/// Fills in what nobody said of how a model of so many parameters and multiply-adds learns.
pub(super) fn lesson(how: &mut Finetune, parameters: usize, macs: Option<u64>, unlabelled: bool) {
    if unlabelled && how.task.is_none() {
        how.task = Some("none".into());
    }
    how.teacher.get_or_insert("self".into());
    how.temperature = how
        .temperature
        .or((how.teacher.as_deref() != Some("none")).then_some(2.0));
    how.batch = how.batch.or(Some(batch(macs.unwrap_or(0))));
    if how.optimizer.is_none() {
        how.lr = how.lr.or(Some(rate(parameters)));
    }
    if how.data == INPUTS {
        how.augment = None;
    }
}

/// Weights make up for what is cut away, where nobody says what does.
pub(super) fn repairs(budget: &mut Budgeted) {
    if budget.recover.is_none() && budget.pattern.piece().is_some() {
        budget.recover = Some(Recover {
            data: budget.finetune.data.clone(),
            repairs: vec!["weights".into()],
            samples: Some(FITTED),
            ..Recover::default()
        });
    }
}

/// Examples in a step, of models of so many multiply-adds.
fn batch(macs: u64) -> u32 {
    match macs {
        0..200_000_000 => 64,
        200_000_000..1_000_000_000 => 32,
        1_000_000_000..4_000_000_000 => 16,
        _ => 8,
    }
}

/// The rate of Adam: weights that came from much training are not to be shaken.
fn rate(parameters: usize) -> f64 {
    match parameters {
        0..1_000_000 => 1e-3,
        1_000_000..8_000_000 => 3e-4,
        _ => 1e-4,
    }
}

/// Epochs after a step, of so many batches.
pub(super) fn epochs(macs: Option<u64>, batch: usize, batches: u64) -> u64 {
    let each = 3.0 * macs.unwrap_or(0).max(1) as f64 * batch as f64;
    let steps = (WORK / each).clamp(STEPS.0, STEPS.1);
    let epochs = (steps / batches.max(1) as f64).ceil() as u64;
    epochs.clamp(EPOCHS.0, EPOCHS.1)
}

/// How the rate goes on over so many epochs: up from nothing, since the first steps of Adam are as long as any and shake what was just
/// fitted, then down.
pub(super) fn schedule(epochs: u64) -> String {
    let tenths = |n: u64| (n * epochs) as f64 / 10.0;
    format!("warmup:{},0.01+cosine:{}", tenths(1), tenths(9))
}

/// How many examples curves are measured by, which ask for so many runs of each.
pub(super) fn seen(macs: Option<u64>, runs: usize) -> usize {
    let each = macs.unwrap_or(0).max(1) as f64 * runs.max(1) as f64;
    (LOOK / each).clamp(16.0, 1024.0) as usize
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn large_models_get_less_of_everything() {
        assert!(batch(4_600_000_000) < batch(40_000_000) && rate(24_000_000) < rate(60_000));
        assert_eq!(
            (epochs(Some(266_200), 64, 844), epochs(Some(67_000), 64, 18)),
            (3, 30)
        );
        assert_eq!(epochs(Some(4_600_000_000), 8, 40), 1);
        assert_eq!(
            (seen(Some(266_200), 24), seen(Some(4_600_000_000), 500)),
            (1024, 16)
        );
    }

    #[test]
    fn rates_rise_before_they_fall() {
        let all: secateur::train::Schedule = schedule(3).parse().unwrap();
        assert_eq!(schedule(3), "warmup:0.3,0.01+cosine:2.7");
        assert_eq!(all.to_string(), schedule(3));
    }

    #[test]
    fn what_is_said_stays() {
        let mut how = Finetune {
            lr: Some(0.5),
            batch: Some(7),
            teacher: Some("none".into()),
            ..Finetune::default()
        };
        lesson(&mut how, 1, Some(1), false);
        assert_eq!(
            (how.lr, how.batch, how.temperature, how.task),
            (Some(0.5), Some(7), None, None)
        );
    }

    #[test]
    fn what_is_cut_is_made_up_for() {
        let of = |pattern: &str, named: &[&str]| {
            let recover = json!({"data": "d", "repairs": named});
            let recover = Some(recover).filter(|_| !named.is_empty());
            let finetune = json!({"data": "d", "epochs": 1});
            let said = json!({"max_drop": 1.0, "pattern": pattern, "finetune": finetune, "recover": recover});
            let mut budget: Budgeted = serde_json::from_value(said).unwrap();
            repairs(&mut budget);
            budget.recover.map(|r| (r.repairs.join(","), r.data))
        };
        let own = |names: &str| Some((names.to_owned(), "d".to_owned()));
        assert_eq!(of("structured+unstructured", &[]), own("weights"));
        assert_eq!(of("unstructured", &[]), None);
        assert_eq!(of("structured", &["bn"]), own("bn"));
        // --recover none
        let said = json!({"max_drop": 1.0, "pattern": "head", "finetune": {"data": "d", "epochs": 1}, "recover": {"data": "d", "repairs": []}});
        let mut budget: Budgeted = serde_json::from_value(said).unwrap();
        repairs(&mut budget);
        assert_eq!(budget.recover.map(|r| r.repairs.len()), Some(0));
    }
}
