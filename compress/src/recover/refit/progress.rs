//! How far the work has come, told as it goes on.

use std::cell::Cell;

use crate::scan::Watch;

/// Steps of layers, of which each has as many.
pub(super) struct Progress<'a> {
    watch: &'a dyn Watch,
    steps: usize,
    /// Steps done of this layer.
    done: Cell<usize>,
}

impl<'a> Progress<'a> {
    /// Work on so many `layers`, each of `steps`, begins.
    pub(super) fn new(watch: &'a dyn Watch, layers: usize, steps: usize) -> Progress<'a> {
        watch.runs("refitting", (layers * steps) as u64);
        Progress {
            watch,
            steps,
            done: Cell::new(0),
        }
    }

    /// So many steps of this layer are done.
    pub(super) fn to(&self, done: usize) {
        let more = done.min(self.steps).saturating_sub(self.done.get());
        if more > 0 {
            self.done.set(self.done.get() + more);
            self.watch.advance(more as u64);
        }
    }

    /// This layer is done, whatever was left.
    pub(super) fn end(&self) {
        self.to(self.steps);
        self.done.set(0);
    }
}
