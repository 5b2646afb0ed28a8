//! A list with at least one item: a verdict that gives reasons has one.

use serde::{Deserialize, Serialize};

/// At least one item, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<T>", into = "Vec<T>", bound(serialize = "T: Serialize + Clone"))]
pub struct NonEmpty<T> {
    first: T,
    rest: Vec<T>,
}

impl<T> NonEmpty<T> {
    /// `None` when the list is empty.
    pub fn new(items: Vec<T>) -> Option<Self> {
        let mut items = items.into_iter();
        let first = items.next()?;
        Some(Self { first, rest: items.collect() })
    }

    /// A list of one.
    pub fn one(item: T) -> Self {
        Self { first: item, rest: Vec::new() }
    }

    /// The same with another item at the end.
    pub fn and(mut self, item: T) -> Self {
        self.rest.push(item);
        self
    }

    /// The first item.
    pub fn first(&self) -> &T {
        &self.first
    }

    /// All items in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.rest)
    }
}

/// Nothing where something was needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an empty list where at least one item is needed")]
pub struct Empty;

impl<T> TryFrom<Vec<T>> for NonEmpty<T> {
    type Error = Empty;

    fn try_from(items: Vec<T>) -> Result<Self, Empty> {
        Self::new(items).ok_or(Empty)
    }
}

impl<T> From<NonEmpty<T>> for Vec<T> {
    fn from(items: NonEmpty<T>) -> Self {
        std::iter::once(items.first).chain(items.rest).collect()
    }
}
