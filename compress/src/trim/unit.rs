//! What goes as a whole: residual blocks and layers.

use std::collections::{BTreeMap, HashSet};

use secateur_engine::Model;

use super::{Frame, Rank};
use crate::blocks::{Block, blocks};
use crate::change::{Change, Keep, Narrow, Plan};
use crate::error::MethodError;
use crate::glob::nearest;
use crate::grain::Piece;
use crate::groups::Sizes;
use crate::layers::{Layer, layers};
use crate::matches;
use crate::recover::RecoverError;

/// A residual block or a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// What it is called: of a block the value that it ends in, of a layer the one that its first product makes.
    pub name: String,
    /// What leaves it out.
    pub change: Change,
    /// The nodes that nothing else needs, the first first.
    pub nodes: Vec<String>,
    /// The floating-point constants that only these read.
    pub constants: Vec<String>,
    /// The elements of these.
    pub parameters: u64,
    /// Multiply-adds of a run with the example sizes.
    pub macs: u64,
    /// How much it does, as far as its weights say; see [`Block`] and [`Layer`].
    pub score: f64,
}

impl From<Block> for Unit {
    fn from(b: Block) -> Unit {
        Unit {
            change: Change::Bypass(b.bypass()),
            name: b.sum,
            nodes: b.nodes,
            constants: b.constants,
            parameters: b.parameters,
            macs: b.macs,
            score: b.score,
        }
    }
}

impl From<Layer> for Unit {
    fn from(l: Layer) -> Unit {
        Unit {
            change: Change::Skip(l.skip()),
            name: l.name,
            nodes: l.nodes,
            constants: l.constants,
            parameters: l.parameters,
            macs: l.macs,
            score: l.score,
        }
    }
}

impl Unit {
    /// What `piece` means in `model`: layers, or else residual blocks.
    ///
    /// # Errors
    ///
    /// If the model cannot be followed.
    pub fn all(model: &Model, piece: Piece, sizes: &Sizes) -> Result<Vec<Unit>, MethodError> {
        match piece {
            Piece::Layer => Ok(layers(model, sizes)
                .map_err(MethodError::run)?
                .into_iter()
                .map(Unit::from)
                .collect()),
            _ => Ok(blocks(model, sizes)
                .map_err(MethodError::run)?
                .into_iter()
                .map(Unit::from)
                .collect()),
        }
    }

    /// Whether `glob` fits its name, or that of one of its nodes or constants.
    pub(crate) fn is_called(&self, glob: &str) -> bool {
        self.names().any(|n| matches(glob, n))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let own = std::iter::once(&self.name);
        own.chain(&self.nodes).chain(&self.constants).map(String::as_str)
    }
}

/// The units of `model` that may go, with a size of 1.
pub(super) fn sizes(
    (piece, keep): (Piece, &[String]),
    model: &Model,
    frame: &Frame,
) -> Result<BTreeMap<String, usize>, RecoverError> {
    let found = Unit::all(model, piece, frame.sizes)?;
    let what = piece.counted();
    if found.is_empty() {
        return Err(MethodError::nothing(none(piece)).into());
    }
    for glob in keep {
        if !found.iter().any(|u| u.is_called(glob)) {
            let near = nearest(glob, found.iter().flat_map(Unit::names));
            let what = format!("{glob:?} fits no name and no node of {what}; the nearest names are {near:?}");
            return Err(MethodError::goal(what).into());
        }
    }
    let free = found.iter().filter(|u| !keep.iter().any(|k| u.is_called(k)));
    let sizes: BTreeMap<_, _> = free.map(|u| (u.name.clone(), 1)).collect();
    match sizes.is_empty() {
        false => Ok(sizes),
        true => Err(MethodError::nothing(format!(
            "nothing to cut: what is to be kept leaves no {}",
            what.trim_end_matches('s')
        ))
        .into()),
    }
}

fn none(piece: Piece) -> &'static str {
    match piece {
        Piece::Layer => {
            "nothing to cut: the model has no layers that keep the shape of what flows through them; residual blocks are pattern block"
        }
        _ => "nothing to cut: the model has no residual blocks with weights",
    }
}

/// How important each of `units` is: what `rank` says of the elements of its constants, or else its own score.
pub(super) fn importance(units: &[Unit], model: &Model, rank: &Rank) -> Vec<f64> {
    let tensor = |name: &String| model.graph.konst(model.graph.find(name)?);
    let sum = |name: &String| Some(rank.of(name, tensor(name)?)?.iter().sum::<f64>());
    let of = |u: &Unit| match rank {
        Rank::Squares => u.score,
        // What nothing is known of stays.
        Rank::Harms(harms) => harms.unit(u).unwrap_or(f64::INFINITY),
        Rank::Scores { .. } => u.constants.iter().filter_map(sum).sum(),
    };
    units.iter().map(of).collect()
}

/// What leaves `units` out and of groups keeps what is to be kept, each of which comes with the constants that it cuts. Groups that are only
/// in what goes as a whole need not become less before.
pub(crate) fn together(
    keeps: impl Iterator<Item = (Vec<String>, Keep)>,
    units: &[&Unit],
    frame: &Frame,
) -> Plan {
    let gone: HashSet<&String> = units.iter().flat_map(|u| &u.constants).collect();
    let alive = keeps.filter(|(cut, _)| cut.iter().any(|c| !gone.contains(c)));
    let groups: Vec<Keep> = alive.map(|(_, keep)| keep).collect();
    let sizes = frame.sizes.clone();
    let narrow = (!groups.is_empty()).then_some(Change::Narrow(Narrow { sizes, groups }));
    let changes = units.iter().map(|u| u.change.clone());
    Plan(narrow.into_iter().chain(changes).collect())
}
