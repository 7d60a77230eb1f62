//! Progress of passes over weights, and of runs.

use std::sync::Mutex;

use secateur::compress::Watch;

use super::ui::{Progress, Ui};

/// One bar after another, counting MiB or runs.
pub(crate) struct Bars<'a> {
    ui: &'a Ui,
    now: Mutex<Option<Bar>>,
}

struct Bar {
    progress: Progress,
    /// Bytes, or runs, that it counts as one.
    unit: u64,
    /// What is not a whole unit yet.
    rest: u64,
    /// What is not done yet.
    left: u64,
}

/// Bytes in the unit of the bars.
const MIB: u64 = 1 << 20;
/// Work on fewer bytes is done before anybody could read of it.
const SHORT: u64 = 64 * MIB;

impl<'a> Bars<'a> {
    pub(crate) fn new(ui: &'a Ui) -> Bars<'a> {
        Bars {
            ui,
            now: Mutex::new(None),
        }
    }

    fn now(&self) -> std::sync::MutexGuard<'_, Option<Bar>> {
        self.now.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Watch for Bars<'_> {
    fn begin(&self, what: &str, bytes: u64) {
        let mut now = self.now();
        // The old bar goes before the new one comes.
        *now = None;
        *now = (bytes >= SHORT).then(|| Bar {
            progress: self.ui.progress(bytes / MIB, &format!("{what}, MiB")),
            unit: MIB,
            rest: 0,
            left: bytes,
        });
    }

    fn runs(&self, what: &str, runs: u64) {
        let mut now = self.now();
        *now = None;
        *now = Some(Bar {
            progress: self.ui.progress(runs, what),
            unit: 1,
            rest: 0,
            left: runs,
        });
    }

    fn advance(&self, bytes: u64) {
        let mut now = self.now();
        let Some(bar) = &mut *now else { return };
        bar.rest += bytes;
        bar.progress.add(bar.rest / bar.unit);
        bar.rest %= bar.unit;
        bar.left = bar.left.saturating_sub(bytes);
        if bar.left == 0 {
            *now = None;
        }
    }
}
