//! A list with at least one item: a verdict that gives reasons has one.

/// At least one item, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
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

    /// The first item.
    pub fn first(&self) -> &T {
        &self.first
    }

    /// All items in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.rest)
    }
}
