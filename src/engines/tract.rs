//! tract, with the feature `tract`. It runs on one thread.

use anyhow::Result;

use super::{Engine, Job, Loaded};

/// tract.
pub(super) struct Tract;

impl Engine for Tract {
    fn name(&self) -> &'static str {
        "tract"
    }

    #[cfg(not(feature = "tract"))]
    fn load(&self, _job: &Job) -> Result<Box<dyn Loaded>> {
        anyhow::bail!("this program was built without tract; build it with --features tract")
    }

    #[cfg(feature = "tract")]
    fn load(&self, job: &Job) -> Result<Box<dyn Loaded>> {
        Ok(Box::new(ready::Ready::new(job)?))
    }
}

#[cfg(feature = "tract")]
mod ready {
    use std::time::Instant;

    use anyhow::{Context, Result, bail};
    use secateur::engine::ir::{DType, Element};
    use secateur::{Outputs, Tensor};
    use tract_onnx::prelude::{
        Datum, DatumType, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable,
        IntoTensor, TValue, TypedRunnableModel,
    };

    use crate::engines::{Job, Loaded, Ran};

    /// A model, and a plan as soon as the shapes of its inputs are known.
    pub(super) struct Ready {
        model: InferenceModel,
        plan: Option<std::sync::Arc<TypedRunnableModel>>,
        inputs: Vec<String>,
        outputs: Vec<String>,
    }

    impl Ready {
        pub(super) fn new(job: &Job) -> Result<Ready> {
            if !job.taps.is_empty() {
                bail!("tract does not show the values inside a graph");
            }
            let file = || job.file.display().to_string();
            let model = tract_onnx::onnx().model_for_path(job.file).with_context(file)?;
            let names = |outlets: &[tract_onnx::prelude::OutletId]| {
                outlets
                    .iter()
                    .map(|o| model.node(o.node).name.clone())
                    .collect::<Vec<_>>()
            };
            let labels = model
                .output_outlets()?
                .iter()
                .map(|o| model.outlet_label(*o).map(str::to_owned));
            let outputs = labels
                .zip(names(model.output_outlets()?))
                .map(|(label, name)| label.unwrap_or(name));
            Ok(Ready {
                inputs: names(model.input_outlets()?),
                outputs: outputs.collect(),
                plan: None,
                model,
            })
        }

        /// The inputs in the model's order.
        fn order<'a>(&self, inputs: &'a [(String, Tensor)]) -> Result<Vec<&'a Tensor>> {
            let find = |name: &String| {
                let found = inputs.iter().find(|(n, _)| n == name);
                Ok(&found.with_context(|| format!("no input {name:?}"))?.1)
            };
            self.inputs.iter().map(find).collect()
        }
    }

    impl Loaded for Ready {
        fn version(&self) -> String {
            // The crate does not say; this is what Cargo.toml asks for.
            "0.23".into()
        }

        fn prepare(&mut self, inputs: &[(String, Tensor)]) -> Result<()> {
            let mut model = self.model.clone();
            for (i, t) in self.order(inputs)?.into_iter().enumerate() {
                model.set_input_fact(i, InferenceFact::dt_shape(datum(t.dtype())?, t.dims()))?;
            }
            self.plan = Some(model.into_optimized()?.into_runnable()?);
            Ok(())
        }

        fn run(&mut self, inputs: &[(String, Tensor)]) -> Result<Ran> {
            if self.plan.is_none() {
                self.prepare(inputs)?;
            }
            let plan = self.plan.as_ref().context("no plan")?;
            let values = self
                .order(inputs)?
                .into_iter()
                .map(value)
                .collect::<Result<_>>()?;
            let start = Instant::now();
            let made = plan.run(values)?;
            let ms = start.elapsed().as_secs_f64() * 1e3;
            let outputs = Outputs {
                names: self.outputs.iter().map(|n| n.as_str().into()).collect(),
                values: made
                    .iter()
                    .map(|v| Ok(tensor(v)?.into()))
                    .collect::<Result<_>>()?,
            };
            Ok(Ran { outputs, ms })
        }
    }

    fn datum(dtype: DType) -> Result<DatumType> {
        Ok(match dtype {
            DType::F32 => DatumType::F32,
            DType::F64 => DatumType::F64,
            DType::I8 => DatumType::I8,
            DType::I32 => DatumType::I32,
            DType::I64 => DatumType::I64,
            DType::U8 => DatumType::U8,
            other => bail!("tensors of {other} are not passed on to tract"),
        })
    }

    fn value(t: &Tensor) -> Result<TValue> {
        fn of<T: Element + Datum>(t: &Tensor) -> Result<TValue> {
            let data = t.elements::<T>().context("another type")?;
            let made = tract_onnx::prelude::Tensor::from_shape(t.dims(), &data)?;
            Ok(made.into_tensor().into())
        }
        match t.dtype() {
            DType::F32 => of::<f32>(t),
            DType::F64 => of::<f64>(t),
            DType::I8 => of::<i8>(t),
            DType::I32 => of::<i32>(t),
            DType::I64 => of::<i64>(t),
            DType::U8 => of::<u8>(t),
            other => bail!("inputs of {other} are not passed on to tract"),
        }
    }

    fn tensor(v: &tract_onnx::prelude::Tensor) -> Result<Tensor> {
        fn of<T: Element + Datum>(v: &tract_onnx::prelude::Tensor) -> Result<Tensor> {
            let view = v.to_plain_array_view::<T>()?;
            Ok(Tensor::of(v.shape(), view.iter().copied().collect()))
        }
        match v.datum_type() {
            DatumType::F32 => of::<f32>(v),
            DatumType::F64 => of::<f64>(v),
            DatumType::I8 => of::<i8>(v),
            DatumType::I32 => of::<i32>(v),
            DatumType::I64 => of::<i64>(v),
            DatumType::U8 => of::<u8>(v),
            other => bail!("outputs of {other:?} are not passed on"),
        }
    }
}
