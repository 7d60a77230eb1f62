//! Layers whose weights can be fitted.

use std::collections::{HashMap, HashSet};

use secateur_engine::ir::{AttrValue, Links, Model, NodeId, ValueId};

use super::super::put::own;
use super::shadow::{Shadow, position};
use crate::math::layout::{Cell, Layout};
use crate::observe::taps::{How, Product, Tap, products};
use crate::place::{At, places};
use crate::weights::{Weight, weights};

/// Columns of a weight from which on it is left alone: the sums of products of all pairs would be too many.
const MOST: usize = 8192;

/// A weight of the main graph and what it is fitted by. Of pairs the first is of the model, the second of its shadow.
pub(super) struct Site {
    /// What the weight is called.
    pub(super) name: String,
    pub(super) layout: Layout,
    /// Which of its rows and columns stay, group by group.
    pub(super) stays: Vec<Stay>,
    /// The columns that meet: all, or those of each class of a transposed convolution.
    pub(super) classes: Vec<Vec<usize>>,
    pub(super) taps: [Tap; 2],
    pub(super) bias: Option<Bias>,
    /// What is added to what comes out before anything else reads it: as if the sum were fitted, not the product.
    pub(super) rest: Option<Rest>,
    /// What the product is multiplied by before anything is added.
    pub(super) scale: f64,
    at: usize,
}

/// What stays of one matrix, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stay {
    pub(super) outputs: Vec<usize>,
    pub(super) columns: Vec<usize>,
}

/// A constant that is added, an element for each output.
#[derive(Clone, Copy)]
pub(super) struct Bias {
    pub(super) value: ValueId,
    /// What it is multiplied by before.
    pub(super) factor: f64,
}

/// The other summand.
pub(super) struct Rest {
    pub(super) values: [ValueId; 2],
    /// The axis of the outputs: so many before the last, or 1 from the front.
    pub(super) back: Option<usize>,
}

/// The layers of `model` that see less or something else after a plan of which `shadow` is the shadow, in their order; and how many of them
/// cannot be fitted.
pub(super) fn sites(model: &Model, shadow: &Shadow) -> (Vec<Site>, usize) {
    let finder = Finder::new(model, shadow);
    let (mut found, mut other) = (vec![], 0);
    for weight in weights(&shadow.model) {
        match finder.site(&weight) {
            Found::Site(site) => found.push(*site),
            Found::Other => other += 1,
            Found::Nothing => {}
        }
    }
    found.sort_by_key(|s| s.at);
    (found, other)
}

enum Found {
    Site(Box<Site>),
    /// It should be fitted, and cannot.
    Other,
    /// There is nothing to fit.
    Nothing,
}

struct Finder<'a> {
    model: &'a Model,
    shadow: &'a Shadow,
    links: [Links; 2],
    touched: HashSet<ValueId>,
    /// By the names of constants their values in the shadow's main graph.
    values: HashMap<String, ValueId>,
    /// The weights of the model.
    before: HashMap<String, Weight>,
}

impl<'a> Finder<'a> {
    fn new(model: &'a Model, shadow: &'a Shadow) -> Finder<'a> {
        let before = weights(model).into_iter().map(|w| (w.name.clone(), w));
        Finder {
            links: [model.graph.links(), shadow.model.graph.links()],
            touched: shadow.touched(model),
            values: values(&shadow.model),
            before: before.collect(),
            model,
            shadow,
        }
    }

    fn site(&self, weight: &Weight) -> Found {
        let Some(&value) = self.values.get(&weight.name) else {
            return Found::Nothing;
        };
        if weight.exempt.is_some() {
            return Found::Nothing;
        }
        match self.fitted(weight, value) {
            Some(site) if self.differs(&site) => Found::Site(site.into()),
            None if self.concerned(weight, value) => Found::Other,
            _ => Found::Nothing,
        }
    }

    /// Whether a weight that cannot be fitted is less, or multiplied by something else.
    fn concerned(&self, weight: &Weight, value: ValueId) -> bool {
        let g = &self.shadow.model.graph;
        let made = |n: &NodeId| g[*n].outputs.iter().flatten().any(|v| self.touched.contains(v));
        self.shadow.stays.contains_key(&weight.name) || self.links[1].readers(value).iter().any(made)
    }

    /// Whether the layer sees less or something else.
    fn differs(&self, site: &Site) -> bool {
        let columns = |s: &Stay| !s.outputs.is_empty() && s.columns.len() < site.layout.columns;
        let [was, is] = &site.taps;
        let name = |model: &'a Model, v: ValueId| &model.graph[v].name;
        let other = name(self.model, was.value) != name(&self.shadow.model, is.value);
        other || self.touched.contains(&is.value) || site.stays.iter().any(columns)
    }

    fn fitted(&self, weight: &Weight, value: ValueId) -> Option<Site> {
        let before = self.before.get(&weight.name)?;
        let finite = before.tensor.floats()?.iter().all(|x| x.is_finite());
        let layout = Layout::of(weight.matrix.as_ref()?);
        let same = before.matrix == weight.matrix && finite;
        let old = *values(self.model).get(&weight.name).filter(|_| same)?;
        let [was, is] = [
            sole(products(self.model, before, old).ok()?)?,
            sole(products(&self.shadow.model, weight, value).ok()?)?,
        ];
        if matches!(is.tap.how, How::Shared) || was.tap.how != is.tap.how {
            return None;
        }
        let (bias, rest) = self.after(&is, &layout);
        let classes = classes(&is.tap.how, &layout)?;
        if classes.iter().any(|c| c.len() > MOST) {
            return None;
        }
        Some(Site {
            classes,
            name: weight.name.clone(),
            stays: stays(&layout, self.shadow.stays.get(&weight.name)),
            bias,
            rest: rest.filter(|_| layout.groups == 1),
            scale: self.number(&is, "alpha"),
            at: position(&self.shadow.model.graph, is.node),
            taps: [was.tap, is.tap],
            layout,
        })
    }

    fn number(&self, product: &Product, name: &str) -> f64 {
        match self.shadow.model.graph[product.node].attr(name) {
            Some(AttrValue::Float(Some(x))) => f64::from(*x),
            _ => 1.0,
        }
    }

    /// What is added to what `product` makes.
    fn after(&self, product: &Product, layout: &Layout) -> (Option<Bias>, Option<Rest>) {
        let node = &self.shadow.model.graph[product.node];
        let (made, outputs) = (
            node.outputs.first().copied().flatten(),
            layout.groups * layout.outputs,
        );
        // What a weight multiplies from the left makes outputs of another axis than the last.
        match made.filter(|_| product.input > 0) {
            None => (None, None),
            Some(made) if node.is("MatMul") => self.after_product(made, outputs),
            Some(made) => self.after_layer(product, made, outputs),
        }
    }

    /// What is added to the matrix product `made`.
    fn after_product(&self, made: ValueId, outputs: usize) -> (Option<Bias>, Option<Rest>) {
        match self.summed(made) {
            Some((sum, value)) if self.vector(value, outputs) => {
                (Some(Bias { value, factor: 1.0 }), self.rest(sum, Some(0)))
            }
            _ => (None, self.rest(made, Some(0))),
        }
    }

    /// What is added to `made` by the node itself, or else by a normalisation behind it, and after it.
    fn after_layer(&self, product: &Product, made: ValueId, outputs: usize) -> (Option<Bias>, Option<Rest>) {
        let node = &self.shadow.model.graph[product.node];
        let factor = match &*node.op {
            "Conv" | "ConvTranspose" | "FusedConv" | "Attention" => 1.0,
            "Gemm" | "FusedGemm" => self.number(product, "beta"),
            _ => 0.0,
        };
        let third = node.inputs.get(2).copied().flatten();
        let own = third.filter(|v| factor != 0.0 && self.vector(*v, outputs));
        let bias = own.map(|value| Bias { value, factor });
        if !["Conv", "ConvTranspose", "Gemm"].iter().any(|op| node.is(op)) {
            return (bias, None);
        }
        if let Some(mean) = self.norm(made, outputs).filter(|_| third.is_none()) {
            return (Some(mean), None);
        }
        let windowed = matches!(product.tap.how, How::Window(_) | How::Spread(_));
        (bias, self.rest(made, (!windowed).then_some(0)))
    }

    /// The only node that reads `v`.
    fn reader(&self, v: ValueId) -> Option<NodeId> {
        let links = &self.links[1];
        match links.readers(v) {
            [one] if !links.kept(v) => Some(*one),
            _ => None,
        }
    }

    /// The sum that is all that `v` is read by, and the other summand.
    fn summed(&self, v: ValueId) -> Option<(ValueId, ValueId)> {
        let node =
            &self.shadow.model.graph[self.reader(v).filter(|n| self.shadow.model.graph[*n].is("Add"))?];
        let sum = node.outputs.first().copied().flatten()?;
        match node.inputs[..] {
            [Some(a), Some(b)] => Some((sum, if a == v { b } else { a })),
            _ => None,
        }
    }

    /// The mean of a normalisation that is all that reads `v`: taken away, as a bias is added.
    fn norm(&self, v: ValueId, outputs: usize) -> Option<Bias> {
        let node = &self.shadow.model.graph[self.reader(v)?];
        let training = matches!(node.attr("training_mode"), Some(AttrValue::Int(Some(1))));
        let input = |i: usize| node.inputs.get(i).copied().flatten();
        let mean = input(3).filter(|m| self.vector(*m, outputs) && input(0) == Some(v))?;
        let plain = node.is("BatchNormalization") && !training;
        plain.then_some(Bias {
            value: mean,
            factor: -1.0,
        })
    }

    /// Whether `v` is a constant with an element for each output that nothing else reads, and one of the model as well.
    fn vector(&self, v: ValueId, outputs: usize) -> bool {
        let shadow = &self.shadow.model;
        let own = own(shadow, &self.links[1], v);
        let long = |t: &secateur_engine::Tensor| t.len() == outputs && t.dims().last() == Some(&outputs);
        own.is_some_and(|t| long(&t) && t.dtype().is_float())
    }

    /// What else is added to `made`, in the model and its shadow.
    fn rest(&self, made: ValueId, back: Option<usize>) -> Option<Rest> {
        let (sum, rest) = self.summed(made)?;
        let (was, is) = (&self.model.graph, &self.shadow.model.graph);
        let [made, sum] = [made, sum].map(|v| was.find(&is[v].name));
        let (id, _) = self.links[0].producer(sum?)?;
        let inputs = was[id].inputs.iter().flatten();
        let others: Vec<ValueId> = inputs.copied().filter(|v| Some(*v) != made).collect();
        match others[..] {
            [other] if was[id].is("Add") => Some(Rest {
                values: [other, rest],
                back,
            }),
            _ => None,
        }
    }
}

/// The values of constants of the main graph, by what they are called.
pub(super) fn values(model: &Model) -> HashMap<String, ValueId> {
    let main = places(model)
        .into_iter()
        .filter(|p| p.site.scope == Default::default());
    let value = |p: crate::place::Place| {
        let v = match p.site.at {
            At::Initializer(v) => v,
            At::Attr(node, _) => model.graph[node].outputs.first().copied().flatten()?,
        };
        Some((p.name, v))
    };
    main.filter_map(value).collect()
}

fn sole(mut products: Vec<Product>) -> Option<Product> {
    let last = products.pop();
    last.filter(|_| products.is_empty())
}

/// The columns that meet in rows; `None` where the node does not say.
fn classes(how: &How, layout: &Layout) -> Option<Vec<Vec<usize>>> {
    let How::Spread(transposed) = how else {
        return Some(vec![(0..layout.columns).collect()]);
    };
    let (classes, inputs) = (transposed.classes()?, layout.inputs);
    let columns = |class| {
        let taps = classes.taps(class).into_iter();
        taps.flat_map(|t| t * inputs..(t + 1) * inputs).collect()
    };
    Some((0..classes.count()).map(columns).collect())
}

/// What stays of each matrix of a weight of whose axes `masks` say what stays; all without them.
fn stays(layout: &Layout, masks: Option<&Vec<Vec<bool>>>) -> Vec<Stay> {
    let all = masks.map(|masks| {
        masks.iter().fold(vec![true], |outer, mask| {
            let row = |o: &bool| mask.iter().map(|k| *o && *k).collect::<Vec<_>>();
            outer.iter().flat_map(row).collect()
        })
    });
    let mut found = vec![(vec![false; layout.outputs], vec![false; layout.columns]); layout.groups];
    for (
        i,
        Cell {
            group,
            output,
            column,
        },
    ) in layout.cells().into_iter().enumerate()
    {
        if all.as_ref().is_none_or(|all| all[i]) {
            found[group].0[output] = true;
            found[group].1[column] = true;
        }
    }
    let which = |mask: Vec<bool>| -> Vec<usize> {
        let each = mask.into_iter().enumerate();
        each.filter(|(_, k)| *k).map(|(i, _)| i).collect()
    };
    found
        .into_iter()
        .map(|(outputs, columns)| Stay {
            outputs: which(outputs),
            columns: which(columns),
        })
        .collect()
}
