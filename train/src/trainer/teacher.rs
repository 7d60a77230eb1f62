//! Models that others learn from.

use std::collections::HashMap;

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

/// The teachers of a course, each model at work once.
pub(super) struct Teachers(Vec<Taught>);

/// A teacher at work: its labels with what they are called in it.
struct Taught {
    says: Vec<(String, String)>,
    session: Session,
}

impl Teachers {
    pub(super) fn new(course: &Course) -> Result<Teachers, TrainError> {
        let mut models: Vec<(&Model, Vec<&Teacher>)> = vec![];
        for teacher in course.teachers {
            match models.iter_mut().find(|(m, _)| std::ptr::eq(*m, teacher.model)) {
                Some((_, same)) => same.push(teacher),
                None => models.push((teacher.model, vec![teacher])),
            }
        }
        let each = models
            .into_iter()
            .map(|(model, all)| Taught::new(model, &all, course));
        Ok(Teachers(each.collect::<Result<_, _>>()?))
    }

    /// What the inputs called `names` are to be: what a teacher says, or the labels of the data.
    pub(super) fn labels<'n>(
        &self,
        names: &'n [String],
        batch: &Batch,
    ) -> Result<Vec<(&'n str, Tensor)>, TrainError> {
        let mut said = HashMap::new();
        for taught in &self.0 {
            taught.say(names, batch, &mut said)?;
        }
        let one = |name: &'n String| {
            let label = said.remove(name.as_str());
            (name.as_str(), label.unwrap_or_else(|| batch.labels.clone()))
        };
        Ok(names.iter().map(one).collect())
    }
}

impl Taught {
    fn new(model: &Model, teachers: &[&Teacher], course: &Course) -> Result<Taught, TrainError> {
        let graph = &model.graph;
        let known = |name: &str| graph.outputs.iter().any(|p| *graph[p.value].name == *name);
        let mut builder = Session::builder(model)
            .threads(course.threads)
            .rates(course.rates.clone());
        for teacher in teachers.iter().filter(|t| !known(t.output)) {
            builder = builder.tap(teacher.output);
        }
        let says = teachers.iter().map(|t| (t.label.to_owned(), t.output.to_owned()));
        Ok(Taught {
            says: says.collect(),
            session: builder.build()?,
        })
    }

    /// Adds to `said` what it makes of a batch, by those of its labels that are among `names`.
    fn say<'s>(
        &'s self,
        names: &[String],
        batch: &Batch,
        said: &mut HashMap<&'s str, Tensor>,
    ) -> Result<(), TrainError> {
        let asked = || self.says.iter().filter(|(label, _)| names.contains(label));
        if asked().next().is_none() {
            return Ok(());
        }
        let known = |name: &str| self.session.inputs().any(|(n, _)| n == name);
        let only = self.session.inputs().next().map(|(n, _)| n.to_owned());
        let single = batch.inputs.len() == 1 && self.session.inputs().count() == 1;
        let fed = batch.inputs.iter().filter_map(|(name, x)| match (&only, single) {
            (Some(only), true) => Some((only.as_str(), x)),
            _ => known(name).then_some((name.as_str(), x)),
        });
        let outputs = self.session.run(fed)?;
        for (label, output) in asked() {
            let found = outputs.get(output).cloned();
            let missing = || TrainError::wrong(format!("the teacher has no tensor {output:?}"));
            said.insert(label, found.ok_or_else(missing)?);
        }
        Ok(())
    }
}
