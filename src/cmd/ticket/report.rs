//! What all trainings of a search say together.

use secateur::compress::math::Interval;
use secateur::compress::ticket::{Arm, Row};
use serde_json::{Value, json};

use super::super::table::{Table, thousands};

/// The rows of a search, and what follows from them.
pub(super) struct Report {
    pub(super) model: String,
    pub(super) rows: Vec<Row>,
    /// One for each arm in each round, sorted by round.
    pub(super) groups: Vec<Group>,
}

/// The trainings of an arm in a round, over all seeds.
pub(super) struct Group {
    pub(super) arm: Arm,
    pub(super) round: u32,
    /// The mean over seeds.
    pub(super) remaining: f64,
    pub(super) weights: u64,
    pub(super) accuracy: Interval,
    pub(super) last: Interval,
    /// Of those that came so far.
    pub(super) steps: Option<Interval>,
    pub(super) reached: usize,
    pub(super) seeds: usize,
}

/// Accuracies of tickets less those of others with the same seed, in a round.
struct Lead {
    round: u32,
    over: Arm,
    accuracy: Interval,
    last: Interval,
}

impl Group {
    fn of(rows: &[&Row]) -> Option<Group> {
        let first = rows.first()?;
        let all = |of: fn(&Row) -> f64| Interval::of(&rows.iter().map(|r| of(r)).collect::<Vec<_>>());
        let steps: Vec<f64> = rows
            .iter()
            .filter_map(|r| r.steps_to_target)
            .map(|s| s as f64)
            .collect();
        Some(Group {
            arm: first.arm,
            round: first.round,
            remaining: all(|r| r.remaining)?.mean,
            weights: first.weights,
            accuracy: all(|r| r.accuracy)?,
            last: all(|r| r.final_accuracy)?,
            steps: Interval::of(&steps),
            reached: steps.len(),
            seeds: rows.len(),
        })
    }

    fn json(&self) -> Value {
        json!({
            "arm": self.arm.name(),
            "round": self.round,
            "remaining": self.remaining,
            "weights": self.weights,
            "seeds": self.seeds,
            "accuracy": interval(self.accuracy),
            "final_accuracy": interval(self.last),
            "steps_to_target": self.steps.map(interval),
            "reached": self.reached,
        })
    }
}

fn interval(x: Interval) -> Value {
    // JSON has no infinity.
    json!({"mean": x.mean, "half": Some(x.half).filter(|h| h.is_finite())})
}

impl Report {
    pub(super) fn new(model: &str, rows: Vec<Row>) -> Report {
        let mut kinds: Vec<(u32, Arm)> = rows.iter().map(|r| (r.round, r.arm)).collect();
        kinds.sort();
        kinds.dedup();
        let group = |kind: &(u32, Arm)| {
            let fit: Vec<&Row> = rows.iter().filter(|r| (r.round, r.arm) == *kind).collect();
            Group::of(&fit)
        };
        Report {
            model: model.into(),
            groups: kinds.iter().filter_map(group).collect(),
            rows,
        }
    }

    /// What came of an arm in a round with a seed.
    fn row(&self, arm: Arm, round: u32, seed: u64) -> Option<&Row> {
        let fits = |r: &&Row| (r.arm, r.round, r.seed) == (arm, round, seed);
        self.rows.iter().find(fits)
    }

    /// How far tickets lead others with the same seeds; those of a round, or the dense networks.
    fn lead(&self, round: u32, over: Arm) -> Option<Lead> {
        let other = if over == Arm::Dense { 0 } else { round };
        let tickets = self
            .rows
            .iter()
            .filter(|r| (r.arm, r.round) == (Arm::Ticket, round));
        let pairs = tickets.filter_map(|t| Some((t, self.row(over, other, t.seed)?)));
        let (tickets, others): (Vec<&Row>, Vec<&Row>) = pairs.unzip();
        let paired = |of: fn(&Row) -> f64| {
            let [a, b] = [&tickets, &others].map(|rows| rows.iter().map(|r| of(r)).collect::<Vec<_>>());
            Interval::paired(&a, &b)
        };
        Some(Lead {
            round,
            over,
            accuracy: paired(|r| r.accuracy)?,
            last: paired(|r| r.final_accuracy)?,
        })
    }

    fn leads(&self) -> Vec<Lead> {
        let tickets = self.groups.iter().filter(|g| g.arm == Arm::Ticket);
        let over = [Arm::Dense, Arm::Reinit, Arm::RandomMask];
        tickets
            .flat_map(|g| over.into_iter().filter_map(move |o| self.lead(g.round, o)))
            .collect()
    }

    /// The smallest ticket that is, in the mean over seeds, at least as right as the dense network, and with every seed became so within
    /// the same number of steps in the mean.
    fn winner(&self) -> Option<&Group> {
        let dense = self.groups.iter().find(|g| g.arm == Arm::Dense)?;
        let wins = |g: &&Group| {
            let in_time = g.steps.zip(dense.steps).is_some_and(|(a, b)| a.mean <= b.mean);
            g.arm == Arm::Ticket && g.reached == g.seeds && in_time && g.accuracy.mean >= dense.accuracy.mean
        };
        self.groups
            .iter()
            .filter(wins)
            .min_by(|a, b| a.remaining.total_cmp(&b.remaining))
    }

    pub(super) fn json(&self) -> Value {
        let lead = |l: &Lead| {
            json!({
                "round": l.round,
                "over": l.over.name(),
                "accuracy": interval(l.accuracy),
                "final_accuracy": interval(l.last),
            })
        };
        let winner = self.winner();
        json!({
            "model": self.model,
            "rows": self.rows.iter().map(figures).collect::<Vec<_>>(),
            "summary": self.groups.iter().map(Group::json).collect::<Vec<_>>(),
            "leads": self.leads().iter().map(lead).collect::<Vec<_>>(),
            "winner": winner.map(|g| json!({"round": g.round, "remaining": g.remaining, "weights": g.weights})),
        })
    }

    pub(super) fn csv(&self) -> String {
        let mut text = String::from(
            "arm,seed,round,remaining,weights,target,steps_to_target,best_step,accuracy,final_accuracy,seconds\n",
        );
        for r in &self.rows {
            let cells = [
                r.arm.name().into(),
                r.seed.to_string(),
                r.round.to_string(),
                r.remaining.to_string(),
                r.weights.to_string(),
                r.target.to_string(),
                r.steps_to_target.map_or(String::new(), |s| s.to_string()),
                r.best_step.to_string(),
                r.accuracy.to_string(),
                r.final_accuracy.to_string(),
                format!("{:.3}", r.seconds),
            ];
            text.push_str(&cells.join(","));
            text.push('\n');
        }
        text
    }

    pub(super) fn text(&self) -> String {
        let mut table = Table::new(&[
            "weights",
            "left %",
            "arm",
            "test accuracy %",
            "at the end %",
            "steps to dense",
            "got there",
            "ticket leads by %",
        ]);
        let leads = self.leads();
        for g in &self.groups {
            let lead = leads.iter().find(|l| (l.round, l.over) == (g.round, g.arm));
            let lead = lead.map_or(String::new(), |l| hundredth(l.accuracy));
            table.row([
                thousands(g.weights),
                format!("{:.2}", 100.0 * g.remaining),
                g.arm.name().into(),
                hundredth(g.accuracy),
                hundredth(g.last),
                g.steps.map_or("never".into(), |s| {
                    format!("{:.0}{}", s.mean, half(s.half, 1.0, 0))
                }),
                format!("{} of {}", g.reached, g.seeds),
                lead,
            ]);
        }
        format!("{table}\n\n{}", self.verdict())
    }

    fn verdict(&self) -> String {
        match self.winner() {
            Some(g) => format!(
                "the smallest ticket that is as good as the dense network, within as many steps, has {:.2} % of the weights (round {})",
                100.0 * g.remaining,
                g.round
            ),
            None => "no ticket is, in the mean over seeds, as good as the dense network within as many steps"
                .into(),
        }
    }
}

/// A row for `--json`, without the curve.
pub(super) fn figures(r: &Row) -> Value {
    json!({
        "arm": r.arm.name(),
        "seed": r.seed,
        "round": r.round,
        "remaining": r.remaining,
        "weights": r.weights,
        "target": r.target,
        "steps_to_target": r.steps_to_target,
        "best_step": r.best_step,
        "accuracy": r.accuracy,
        "final_accuracy": r.final_accuracy,
        "seconds": r.seconds,
    })
}

/// A share in percent, with how far it may be off.
fn hundredth(x: Interval) -> String {
    format!("{:.2}{}", 100.0 * x.mean, half(x.half, 100.0, 2))
}

fn half(half: f64, unit: f64, digits: usize) -> String {
    match half.is_finite() {
        true => format!(" ± {:.digits$}", unit * half),
        false => String::new(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn row(arm: Arm, seed: u64, round: u32, accuracy: f64, steps: Option<u64>) -> Row {
        Row {
            arm,
            seed,
            round,
            remaining: 0.5f64.powi(round as i32),
            weights: 1000 >> round,
            target: 0.9,
            steps_to_target: steps,
            best_step: 100,
            accuracy,
            final_accuracy: accuracy - 0.01,
            seconds: 1.0,
            curve: vec![],
        }
    }

    pub(in super::super) fn report() -> Report {
        let mut rows = vec![];
        for seed in 0..2 {
            let off = 0.01 * seed as f64;
            rows.push(row(Arm::Dense, seed, 0, 0.90 + off, Some(80)));
            rows.push(row(Arm::Reinit, seed, 1, 0.85 + off, None));
            rows.push(row(Arm::Ticket, seed, 1, 0.91 + off, Some(60)));
            rows.push(row(Arm::Reinit, seed, 2, 0.80 - off, None));
            rows.push(row(
                Arm::Ticket,
                seed,
                2,
                0.91 + off,
                Some(70).filter(|_| seed == 0),
            ));
        }
        Report::new("m", rows)
    }

    #[test]
    fn the_winner_is_as_good_with_every_seed() {
        let report = report();
        // In the second round one seed never became as good.
        assert_eq!(report.json()["winner"]["round"], 1);
        assert!(
            report.text().contains("50.00 % of the weights"),
            "{}",
            report.text()
        );
        let worse = report
            .rows
            .iter()
            .filter(|r| r.arm != Arm::Ticket)
            .cloned()
            .collect();
        assert!(Report::new("m", worse).json()["winner"].is_null());
    }

    #[test]
    fn leads_are_of_pairs() {
        let json = report().json();
        let leads = json["leads"].as_array().unwrap();
        let of = |round: u32, over: &str| {
            let found = leads
                .iter()
                .find(|l| l["round"] == round && l["over"] == over)
                .unwrap();
            let (mean, half) = (&found["accuracy"]["mean"], &found["accuracy"]["half"]);
            (mean.as_f64().unwrap(), half.as_f64().unwrap())
        };
        let (mean, half) = of(1, "reinit");
        assert!((mean - 0.06).abs() < 1e-9 && half < 1e-9);
        let (mean, half) = of(2, "reinit");
        assert!((mean - 0.12).abs() < 1e-9 && half > 0.1);
        assert!((of(2, "dense").0 - 0.01).abs() < 1e-9);
    }

    #[test]
    fn tables_have_a_line_for_each_training() {
        let csv = report().csv();
        assert_eq!(csv.lines().count(), 11);
        let columns = csv.lines().map(|l| l.split(',').count());
        assert!(columns.into_iter().all(|n| n == 11));
        assert_eq!(report().json()["rows"].as_array().unwrap().len(), 10);
    }
}
