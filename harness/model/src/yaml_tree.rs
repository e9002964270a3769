//! A YAML document as a tree that knows where each part stands, and a deserializer over it.
//!
//! Serde alone stops at the first mistake and forgets where it was. [`crate::yaml_de::read`] drops the part that
//! is wrong and goes on, so that one look at a file shows all that is wrong with it. Anchors,
//! aliases, tags and merge keys are refused: none of our files needs them, and without them a
//! small file can't unfold into a large one.

use serde_yaml::granit_parser::{Event, Parser, ScalarStyle, Span};

use crate::mistake::{Mistake, Place, Step};

/// Nesting that a file may have; a case needs half of it.
const MAX_DEPTH: usize = 16;

/// One part of a document and where it begins.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) place: Place,
    pub(crate) node: Node,
}

#[derive(Debug, Clone)]
pub(crate) enum Node {
    /// A scalar's text, and whether it was plain, so that `on` and `"on"` can be told apart.
    Scalar {
        text: String,
        plain: bool,
    },
    /// Items with their index in the file, which they keep when others are dropped.
    List(Vec<(usize, Part)>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) value: Part,
}

impl Part {
    /// Reads a document.
    pub(crate) fn parse(text: &str) -> Result<Self, Mistake> {
        Builder::default().document(text)
    }

    /// Where the part at `path` stands, or the nearest one around it. A key's place is the key's.
    pub(crate) fn locate(&self, path: &[Step]) -> Place {
        let mut part = self;
        let mut place = self.place;
        for step in path {
            let next = match (&part.node, step) {
                (Node::Map(entries), Step::Key(key)) => entries
                    .iter()
                    .find(|entry| entry.key == *key)
                    .map(|entry| (entry.key_place, &entry.value)),
                (Node::List(items), Step::Index(index)) => {
                    item_at(items, *index).map(|at| (items[at].1.place, &items[at].1))
                }
                _ => None,
            };
            let Some(next) = next else { break };
            (place, part) = next;
        }
        place
    }

    /// Takes out the part at `path`, so that what is beside it can still be read. False where there
    /// is no such part.
    pub(crate) fn remove(&mut self, path: &[Step]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        match (&mut self.node, first) {
            (Node::Map(entries), Step::Key(key)) => {
                match entries.iter().position(|entry| entry.key == *key) {
                    Some(at) if rest.is_empty() => drop(entries.remove(at)),
                    Some(at) => return entries[at].value.remove(rest),
                    None => return false,
                }
                true
            }
            (Node::List(items), Step::Index(index)) => {
                match item_at(items, *index) {
                    Some(at) if rest.is_empty() => drop(items.remove(at)),
                    Some(at) => return items[at].1.remove(rest),
                    None => return false,
                }
                true
            }
            _ => false,
        }
    }
}

fn item_at(items: &[(usize, Part)], index: usize) -> Option<usize> {
    items.iter().position(|(own, _)| *own == index)
}

/// Builds the tree from the parser's events.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    done: Option<Part>,
}

/// A list or map that is not closed yet, with the key whose value comes next.
struct Open {
    part: Part,
    key: Option<(String, Place)>,
}

impl Builder {
    fn document(mut self, text: &str) -> Result<Part, Mistake> {
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                let at = error.marker();
                let place = Place { line: at.line(), column: at.col() + 1 };
                Mistake::new(format!("not YAML: {}", error.info())).standing(place)
            })?;
            self.event(event, place_of(&span))
                .map_err(|mistake| mistake.standing(place_of(&span)).under(&self.path()))?;
        }
        self.done
            .ok_or_else(|| Mistake::new("the file is empty").standing(Place { line: 1, column: 1 }))
    }

    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), Mistake> {
        let refused = |anchor: usize, tagged: bool| match (anchor, tagged) {
            (0, false) => Ok(()),
            (_, true) => Err(Mistake::new("a tag (`!...`): write plain values")),
            _ => Err(Mistake::new("an anchor (`&...`): write the value out where it is used")),
        };
        match event {
            Event::DocumentStart(..) if self.done.is_some() => {
                Err(Mistake::new("a second document (`---`): one file holds one"))
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                Err(Mistake::new("an alias (`*...`): write the value out"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                refused(anchor, tag.is_some())?;
                let plain = style == ScalarStyle::Plain;
                self.scalar(text.into_owned(), plain, place)
            }
            Event::SequenceStart(_, anchor, tag) => {
                refused(anchor, tag.is_some())?;
                self.open(Node::List(Vec::new()), place)
            }
            Event::MappingStart(_, anchor, tag) => {
                refused(anchor, tag.is_some())?;
                self.open(Node::Map(Vec::new()), place)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    self.put(open.part);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn scalar(&mut self, text: String, plain: bool, place: Place) -> Result<(), Mistake> {
        match self.open.last_mut() {
            Some(Open { part: Part { node: Node::Map(entries), .. }, key: key @ None }) => {
                if let Some(first) = entries.iter().find(|entry| entry.key == text) {
                    return Err(Mistake::new(format!(
                        "`{}` a second time: it stands on line {} already",
                        crate::text::shown(&text),
                        first.key_place.line
                    )));
                }
                *key = Some((text, place));
            }
            _ => self.put(Part { place, node: Node::Scalar { text, plain } }),
        }
        Ok(())
    }

    fn open(&mut self, node: Node, place: Place) -> Result<(), Mistake> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Mistake::new(format!("nested more than {MAX_DEPTH} deep")));
        }
        if let Some(Open { part: Part { node: Node::Map(_), .. }, key: None }) = self.open.last() {
            return Err(Mistake::new("a list or map as a key"));
        }
        self.open.push(Open { part: Part { place, node }, key: None });
        Ok(())
    }

    fn put(&mut self, part: Part) {
        match self.open.last_mut() {
            None => self.done = Some(part),
            Some(open) => match &mut open.part.node {
                Node::List(items) => items.push((items.len(), part)),
                Node::Map(entries) => {
                    if let Some((key, key_place)) = open.key.take() {
                        entries.push(Entry { key, key_place, value: part });
                    }
                }
                Node::Scalar { .. } => {}
            },
        }
    }

    fn path(&self) -> Vec<Step> {
        self.open
            .iter()
            .filter_map(|open| match (&open.part.node, &open.key) {
                (Node::List(items), _) => Some(Step::Index(items.len())),
                (_, Some((key, _))) => Some(Step::Key(key.clone())),
                _ => None,
            })
            .collect()
    }
}

fn place_of(span: &Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}
