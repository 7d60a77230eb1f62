//! Models that others learn from.

use secateur_engine::{Model, Session, Tensor};

use super::Course;
use crate::TrainError;
use crate::data::Batch;

/// A model one of whose outputs is a label of another that learns from it.
#[derive(Clone, Copy, Debug)]
pub struct Teacher<'a> {
    /// The name by which terms call it.
    pub label: &'a str,
    /// The model.
    pub model: &'a Model,
    /// Its output, or another value of it.
    pub output: &'a str,
}

/// A teacher at work.
pub(super) struct Taught {
    pub(super) label: String,
    output: String,
    session: Session,
}

impl Taught {
    pub(super) fn new(teacher: &Teacher, course: &Course) -> Result<Taught, TrainError> {
        let builder = Session::builder(teacher.model)
            .threads(course.threads)
            .rates(course.rates.clone());
        let graph = &teacher.model.graph;
        let known = graph
            .outputs
            .iter()
            .any(|p| *graph[p.value].name == *teacher.output);
        let builder = if known {
            builder
        } else {
            builder.tap(teacher.output)
        };
        Ok(Taught {
            label: teacher.label.into(),
            output: teacher.output.into(),
            session: builder.build()?,
        })
    }

    /// What it makes of a batch.
    pub(super) fn says(&self, batch: &Batch) -> Result<Tensor, TrainError> {
        let known = |name: &str| self.session.inputs().any(|(n, _)| n == name);
        let only = self.session.inputs().next().map(|(n, _)| n.to_owned());
        let single = batch.inputs.len() == 1 && self.session.inputs().count() == 1;
        let fed = batch.inputs.iter().filter_map(|(name, x)| match (&only, single) {
            (Some(only), true) => Some((only.as_str(), x)),
            _ => known(name).then_some((name.as_str(), x)),
        });
        let mut outputs = self.session.run(fed)?;
        let missing = || TrainError::wrong(format!("the teacher has no tensor {:?}", self.output));
        outputs.take(&self.output).ok_or_else(missing)
    }
}
