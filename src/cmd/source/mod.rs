//! Where the inputs of a run come from: `-i NAME=SOURCE`.

pub(crate) mod photo;
pub(crate) mod random;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use secateur::Tensor;
use secateur::engine::ir::{DType, count};
use secateur::engine::run::nearest;

use super::shapes::{Sizes, Wanted};
use super::ui::Ui;
use photo::PhotoFlags;
use random::Random;
use secateur::train::data::{Photo, npy, npz};

/// The flags of verbs that run models.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Inputs")]
pub(crate) struct InputFlags {
    /// x.npy, x.npz:KEY, photo.png, photo.jpg, rand, rand:LO:HI, ones, zeros or 1,2,3; @2x3 after it sets the shape
    /// [default: rand for floats, ones for others]
    #[arg(long = "input", short, value_name = "NAME=SOURCE")]
    pub(crate) inputs: Vec<String>,
    #[command(flatten)]
    pub(crate) photo: PhotoFlags,
}

/// What `-i` may say after the name.
#[derive(Clone, Debug, PartialEq)]
enum Source {
    Rand(f64, f64),
    Ones,
    Zeros,
    List(Vec<f64>),
    Npy(PathBuf),
    Npz(PathBuf, Option<String>),
    Photo(PathBuf),
}

impl Source {
    fn parse(text: &str) -> Result<Source> {
        let lower = text.to_ascii_lowercase();
        let ends = |suffixes: &[&str]| suffixes.iter().any(|s| lower.ends_with(s));
        let parts: Vec<&str> = text.split(':').collect();
        Ok(match &parts[..] {
            ["rand"] => Source::Rand(0.0, 1.0),
            ["rand", low, high] => Source::range(low, high)?,
            ["ones"] => Source::Ones,
            ["zeros"] => Source::Zeros,
            _ if ends(&[".npy"]) => Source::Npy(text.into()),
            _ if ends(&[".png", ".jpg", ".jpeg"]) => Source::Photo(text.into()),
            _ if ends(&[".npz"]) => Source::Npz(text.into(), None),
            _ => match lower.find(".npz:").map(|at| text.split_at(at + 4)) {
                Some((path, key)) => Source::Npz(path.into(), Some(key[1..].to_owned())),
                None => Source::list(text)?,
            },
        })
    }

    fn range(low: &str, high: &str) -> Result<Source> {
        let number = |s: &str| s.parse::<f64>().with_context(|| format!("{s:?} is not a number"));
        let (low, high) = (number(low)?, number(high)?);
        ensure!(
            low <= high && (high - low).is_finite(),
            "rand:LO:HI needs LO ≤ HI, found {low} and {high}"
        );
        Ok(Source::Rand(low, high))
    }

    fn list(text: &str) -> Result<Source> {
        let numbers: Result<Vec<f64>, _> = text.split(',').map(|s| s.trim().parse()).collect();
        let known = "x.npy, x.npz:KEY, photo.png, photo.jpg, rand, rand:LO:HI, ones, zeros or 1,2,3";
        Ok(Source::List(
            numbers.ok().with_context(|| format!("expected {known}"))?,
        ))
    }
}

/// What is to be fed to one input.
struct Feed {
    input: Wanted,
    source: Source,
    /// The shape after `@`.
    shape: Option<Vec<usize>>,
    /// What was read from a file.
    read: Option<Read>,
}

enum Read {
    Array(Tensor),
    Photo(Photo),
}

/// Makes the inputs of a model's runs.
pub(crate) struct Feeder {
    feeds: Vec<(Feed, Vec<usize>)>,
    photo: PhotoFlags,
    /// Bytes that may be worked in.
    memory: usize,
}

/// Bytes for each element while an input is made: as `f64`, and as what it becomes.
const WORK: usize = 16;

impl Feeder {
    /// What `flags` and the common flags say of `inputs`; says on standard error what they leave open.
    ///
    /// # Errors
    ///
    /// If they name an input that there is not, or a file cannot be read, or a shape does not fit.
    pub(crate) fn new(inputs: &[Wanted], flags: &InputFlags, ui: &Ui) -> Result<Feeder> {
        let mut sizes = Sizes::of(inputs, &ui.common.sizes)?;
        let given = given(inputs, flags)?;
        let mut feeds: Vec<Feed> = vec![];
        for input in inputs {
            let text = given
                .iter()
                .find(|(name, _)| *name == input.name)
                .map(|(_, t)| *t);
            let place = || format!("input {:?}", input.name);
            feeds.push(Feed::of(input, text, ui).with_context(place)?);
        }
        feeds.iter().for_each(|f| f.teach(&mut sizes, &flags.photo));
        let mut shaped = vec![];
        for feed in feeds {
            let shape = feed
                .dims(&mut sizes)
                .with_context(|| format!("input {:?}", feed.input.name))?;
            shaped.push((feed, shape));
        }
        sizes.note(ui);
        Ok(Feeder {
            feeds: shaped,
            photo: flags.photo.clone(),
            memory: ui
                .common
                .max_memory
                .or_else(secateur::engine::plan::available)
                .unwrap_or(usize::MAX),
        })
    }

    /// The inputs with their shapes.
    pub(crate) fn shapes(&self) -> Vec<(Wanted, Vec<usize>)> {
        self.feeds
            .iter()
            .map(|(f, dims)| (f.input.clone(), dims.clone()))
            .collect()
    }

    /// Tensors for one run; `seed` decides what is random.
    ///
    /// # Errors
    ///
    /// If an input has a type for which nothing can be made up, or numbers do not fit it.
    pub(crate) fn make(&self, seed: u64) -> Result<Vec<(String, Tensor)>> {
        let elements = self
            .feeds
            .iter()
            .map(|(_, dims)| count(dims).unwrap_or(usize::MAX));
        let bytes = elements.fold(0usize, usize::saturating_add).saturating_mul(WORK);
        ensure!(
            bytes <= self.memory,
            "inputs of these shapes take {bytes} bytes to make; there are {}",
            self.memory
        );
        let one = |(feed, dims): &(Feed, Vec<usize>)| {
            let made = feed.make(dims, seed, &self.photo);
            let tensor = made.with_context(|| format!("input {:?}", feed.input.name))?;
            Ok((feed.input.name.clone(), tensor))
        };
        self.feeds.iter().map(one).collect()
    }

    /// Whether no run differs from another.
    pub(crate) fn is_fixed(&self) -> bool {
        !self
            .feeds
            .iter()
            .any(|(f, _)| matches!(f.source, Source::Rand(..)))
    }
}

/// Names and sources of `-i`, checked against the `inputs`. The name may be left out where there is only one.
fn given<'a>(inputs: &'a [Wanted], flags: &'a InputFlags) -> Result<Vec<(&'a str, &'a str)>> {
    let known: Vec<String> = inputs.iter().map(|i| i.name.clone()).collect();
    let mut given: Vec<(&str, &str)> = vec![];
    for text in &flags.inputs {
        let (name, source) = match (text.split_once('='), inputs) {
            (Some(pair), _) => pair,
            (None, [only]) => (only.name.as_str(), text.as_str()),
            (None, _) => bail!("-i {text}: expected NAME=SOURCE; the inputs are {known:?}"),
        };
        if !known.iter().any(|k| k == name) {
            bail!(
                "no input {name:?}{}; the inputs are {known:?}",
                nearest(name, &known)
            );
        }
        if given.iter().any(|(n, _)| *n == name) {
            bail!("input {name:?} is given twice");
        }
        given.push((name, source));
    }
    Ok(given)
}

/// `SOURCE@2x3` as its two parts.
fn split_shape(text: &str) -> Result<(&str, Option<Vec<usize>>)> {
    let Some((source, shape)) = text.rsplit_once('@') else {
        return Ok((text, None));
    };
    let sizes: Result<Vec<usize>, _> = shape.split(['x', ',']).map(str::parse).collect();
    match sizes {
        Ok(sizes) => Ok((source, Some(sizes))),
        Err(_) if Path::new(text).exists() => Ok((text, None)),
        Err(_) => bail!("{shape:?} is not a shape; expected sizes, as in @1x3x224x224"),
    }
}

impl Feed {
    fn of(input: &Wanted, text: Option<&str>, ui: &Ui) -> Result<Feed> {
        let Some(text) = text else {
            let (source, what) = match input.dtype().is_float() {
                true => (Source::Rand(0.0, 1.0), "random numbers from 0 to 1"),
                false => (Source::Ones, "ones"),
            };
            ui.note(&format!("input {:?} ({}): {what}", input.name, input.ty));
            return Ok(Feed::new(input, source, None, None));
        };
        let (text, shape) = split_shape(text)?;
        let source = Source::parse(text).with_context(|| format!("source {text:?}"))?;
        let place = |p: &Path| p.display().to_string();
        let read = match &source {
            Source::Npy(path) => {
                let bytes = std::fs::read(path).with_context(|| place(path))?;
                Some(Read::Array(npy::read(&bytes).with_context(|| place(path))?))
            }
            Source::Npz(path, key) => {
                let array = npz::read(path, key.as_deref()).with_context(|| place(path))?;
                Some(Read::Array(array))
            }
            Source::Photo(path) => Some(Read::Photo(Photo::read(path)?)),
            _ => None,
        };
        Ok(Feed::new(input, source, shape, read))
    }

    fn new(input: &Wanted, source: Source, shape: Option<Vec<usize>>, read: Option<Read>) -> Feed {
        Feed {
            input: input.clone(),
            source,
            shape,
            read,
        }
    }

    /// Takes what shapes say of free dimensions over into `sizes`.
    fn teach(&self, sizes: &mut Sizes, flags: &PhotoFlags) {
        let ty = &self.input.ty;
        match (&self.shape, &self.read) {
            (Some(dims), _) => sizes.learn(ty, dims),
            (None, Some(Read::Array(t))) => sizes.learn(ty, t.dims()),
            (None, Some(Read::Photo(photo))) => {
                let shape = ty.shape().cloned().unwrap_or_default();
                let known: Vec<_> = shape.iter().map(|d| sizes.get(d)).collect();
                if let Some([h, w]) = photo::spatial(&known, flags.layout) {
                    sizes.learn_axis(&shape[h], photo.height());
                    sizes.learn_axis(&shape[w], photo.width());
                }
            }
            _ => {}
        }
    }

    /// The shape of the tensor to be made.
    fn dims(&self, sizes: &mut Sizes) -> Result<Vec<usize>> {
        match (&self.shape, &self.read, &self.source) {
            (Some(dims), ..) => Ok(dims.clone()),
            (None, Some(Read::Array(t)), _) => Ok(t.dims().to_vec()),
            (None, _, Source::List(list)) => self.list_dims(list.len(), sizes),
            _ => Ok(sizes.shape(&self.input)),
        }
    }

    /// The shape of a list of `n` numbers: the declared one, whose one unknown size they decide.
    fn list_dims(&self, n: usize, sizes: &mut Sizes) -> Result<Vec<usize>> {
        let Some(shape) = self.input.ty.shape() else {
            return Ok(vec![n]);
        };
        let unknown: Vec<usize> = (0..shape.len())
            .filter(|&i| sizes.get(&shape[i]).is_none())
            .collect();
        if let Some(&last) = unknown.last() {
            let others = shape
                .iter()
                .filter_map(|d| sizes.get(d))
                .product::<usize>()
                .max(1);
            ensure!(
                n.is_multiple_of(others),
                "{n} numbers do not fill {}",
                self.input.ty
            );
            sizes.learn_axis(&shape[last], n / others);
            let mut dims = sizes.shape(&self.input);
            dims[last] = n / others;
            return Ok(dims);
        }
        Ok(sizes.shape(&self.input))
    }

    fn make(&self, dims: &[usize], seed: u64, flags: &PhotoFlags) -> Result<Tensor> {
        let dtype = self.input.dtype();
        let n = count(dims).with_context(|| format!("{dims:?} is too large"))?;
        match (&self.read, &self.source) {
            (Some(Read::Array(t)), _) => {
                let fits = t.reshaped(dims);
                fits.with_context(|| format!("an array of shape {:?} cannot be taken as {dims:?}", t.dims()))
            }
            (Some(Read::Photo(photo)), _) => photo::tensor(photo, dtype, dims, flags),
            (None, Source::List(list)) => numbers(dtype, dims, list),
            (None, Source::Ones) => numbers(dtype, dims, &vec![1.0; n]),
            (None, Source::Rand(low, high)) => {
                let made = Random::new(seed, &self.input.name).tensor(dtype, dims, (*low, *high));
                made.with_context(|| format!("no random numbers of type {dtype}"))
            }
            (None, _) => Tensor::zeros(dtype, dims).with_context(|| format!("no zeros of type {dtype}")),
        }
    }
}

/// A tensor of exactly these numbers; for floats, of the nearest.
fn numbers(dtype: DType, dims: &[usize], data: &[f64]) -> Result<Tensor> {
    ensure!(
        Some(data.len()) == count(dims),
        "{} numbers do not fill the shape {dims:?}",
        data.len()
    );
    let made = Tensor::rounded(dtype, dims, data).with_context(|| format!("no numbers of type {dtype}"))?;
    let back = made.floats().unwrap_or_default();
    let changed = data.iter().zip(&back).find(|(a, b)| a != b);
    match changed {
        Some((x, _)) if !dtype.is_float() => bail!("{x} is no {dtype}"),
        _ => Ok(made),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur::engine::ir::{Dim, Type};

    #[test]
    fn sources_are_told_apart() {
        let parse = |s| Source::parse(s).unwrap();
        assert_eq!(parse("rand:-1:2"), Source::Rand(-1.0, 2.0));
        assert_eq!(
            parse("a.b.npz:k/x:0"),
            Source::Npz("a.b.npz".into(), Some("k/x:0".into()))
        );
        assert_eq!(parse("1, -2.5"), Source::List(vec![1.0, -2.5]));
        assert_eq!(parse("Photo.JPG"), Source::Photo("Photo.JPG".into()));
        assert!(Source::parse("rnd").is_err() && Source::parse("rand:2:1").is_err());
        assert_eq!(split_shape("rand@2x3").unwrap(), ("rand", Some(vec![2, 3])));
        assert!(split_shape("rand@2y3").is_err());
    }

    #[test]
    fn lists_fill_the_free_dimension() {
        let ty = Type::tensor(DType::I64, [Dim::symbol("n"), Dim::Known(2)]);
        let input = Wanted { name: "x".into(), ty };
        let feed = Feed::new(&input, Source::List(vec![1.0; 6]), None, None);
        assert_eq!(feed.dims(&mut Sizes::default()).unwrap(), [3, 2]);
        let odd = Feed::new(&input, Source::List(vec![1.0; 5]), None, None);
        assert!(odd.dims(&mut Sizes::default()).is_err());
    }

    #[test]
    fn numbers_must_fit_the_type() {
        assert!(numbers(DType::U8, &[1], &[256.0]).is_err());
        assert!(numbers(DType::I64, &[1], &[1.5]).is_err());
        assert!(numbers(DType::F32, &[1], &[0.1]).is_ok());
    }
}
