//! Weights in the order that kernels read them, shared by all plans of a session.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::ir::ValueId;

type Shelf = HashMap<(ValueId, String), Arc<dyn Any + Send + Sync>>;

/// Packed weights, by value and layout. Copies share them.
#[derive(Clone, Default)]
pub struct Packs(Arc<Mutex<Shelf>>);

impl Packs {
    /// `value` packed into `layout`, made by the first who asks. A layout's name says all that the result depends on.
    pub fn get<T: Send + Sync + 'static>(
        &self,
        value: ValueId,
        layout: &str,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let shelf = || self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let key = (value, layout.to_owned());
        let found = |shelf: &Shelf| shelf.get(&key).and_then(|a| a.clone().downcast::<T>().ok());
        if let Some(found) = found(&shelf()) {
            return found;
        }
        // Others may pack meanwhile; who is first counts.
        let made = Arc::new(make());
        let mut shelf = shelf();
        if let Some(found) = found(&shelf) {
            return found;
        }
        shelf.insert(key, made.clone());
        made
    }
}
