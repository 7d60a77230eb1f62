//! Weights in the order that kernels read them, shared by all plans of a session.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::cache::{Cache, Order, Packed};
use crate::ir::{Tensor, ValueId};

type Shelf = HashMap<(ValueId, String), Arc<dyn Any + Send + Sync>>;

/// Packed weights, by value and order. Copies share them.
#[derive(Clone, Default)]
pub struct Packs {
    shelf: Arc<Mutex<Shelf>>,
    cache: Option<Arc<Cache>>,
}

impl Packs {
    /// None yet; what is in `cache` need not be made.
    pub fn new(cache: Option<Arc<Cache>>) -> Packs {
        Packs {
            cache,
            ..Packs::default()
        }
    }

    /// `weight`, which is what `value` is, packed in `order`: made by the first who asks.
    pub fn get<T: Packed>(
        &self,
        value: ValueId,
        weight: &Tensor,
        order: &Order,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        self.keep(value, &order.name, || match &self.cache {
            Some(cache) => cache.get(weight, order, make),
            None => Arc::new(make()),
        })
    }

    /// What follows from `value` in the way `name`: made by the first who asks, and never in the cache.
    pub fn keep<T: Send + Sync + 'static>(
        &self,
        value: ValueId,
        name: &str,
        make: impl FnOnce() -> Arc<T>,
    ) -> Arc<T> {
        let shelf = || self.shelf.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let key = (value, name.to_owned());
        let found = |shelf: &Shelf| shelf.get(&key).and_then(|a| a.clone().downcast::<T>().ok());
        if let Some(found) = found(&shelf()) {
            return found;
        }
        // Others may make it meanwhile; who is first counts.
        let made = make();
        let mut shelf = shelf();
        if let Some(found) = found(&shelf) {
            return found;
        }
        shelf.insert(key, made.clone());
        made
    }
}
