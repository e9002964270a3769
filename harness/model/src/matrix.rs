//! The cells that a case unfolds into, their ids, and finding them again.

use std::collections::BTreeSet;

use crate::{
    axes::{Axes, Axis},
    case::Case,
    conditions::AxisSets,
    mistake::Place,
    text::{distance, shown},
    yaml_de::read,
    yaml_tree::{Entry, Node, Part},
};

/// Cells of all cases that a run may have.
const MAX_CELLS: usize = 10_000;

/// One combination of a case's axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Its name: `case/axis=value,...,kernel=name`. The same cell has the same one however it was
    /// selected.
    pub id: String,
    /// Name of its case.
    pub case: String,
    /// What is asked for.
    pub axes: Axes,
    /// The axes that its id names.
    pub varied: Vec<Axis>,
}

/// Why there are no cells.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// Nothing is left.
    #[error("case `{case}` has no cell left: {why}")]
    Empty {
        /// The case.
        case: String,
        /// What took the last one away.
        why: String,
    },
    /// Far too many.
    #[error("case `{case}` has {count} cells; at most {MAX_CELLS} can be run")]
    TooMany {
        /// The case.
        case: String,
        /// How many there would be.
        count: usize,
    },
    /// Two cells could not be told apart.
    #[error(
        "two cells have the id `{id}`: give kernels and QEMUs names that differ in letters or digits"
    )]
    Twice {
        /// The id.
        id: String,
    },
    /// A value of the command line is none.
    #[error("`{text}`: {why}")]
    BadOverride {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// No cell has that name.
    #[error("no cell is named `{pattern}`{}", near_list(.near))]
    Unknown {
        /// What was given.
        pattern: String,
        /// Ids that are nearly that.
        near: Vec<String>,
    },
    /// Several cells fit where one is needed.
    #[error("`{pattern}` fits {count} cells, name one of them{}", near_list(.some))]
    Ambiguous {
        /// What was given.
        pattern: String,
        /// How many fit.
        count: usize,
        /// The first few.
        some: Vec<String>,
    },
}

fn near_list(ids: &[String]) -> String {
    if ids.is_empty() { String::new() } else { format!("; there are {}", ids.join("  ")) }
}

/// Unfolds a case. `given` replaces the case's values on each axis that it has (a command line's
/// kernels, QEMUs and `--set`).
///
/// # Errors
/// [`MatrixError::Empty`] where excludes leave nothing, or no device has work in this case;
/// [`MatrixError::TooMany`]; [`MatrixError::Twice`].
pub fn cells(case: &Case, given: &AxisSets) -> Result<Vec<Cell>, MatrixError> {
    let sets = case.axes.replaced_by(given);
    if sets.size() > MAX_CELLS {
        return Err(MatrixError::TooMany { case: case.name.clone(), count: sets.size() });
    }
    let own = own_values(case);
    let mut why = "no axis has a value".to_owned();
    let mut seen = BTreeSet::new();
    let mut cells = Vec::new();
    for axes in sets.product() {
        if let Some(reason) = case.excluded(&axes) {
            why = format!("all are excluded ({})", shown(reason));
            continue;
        }
        if !case.fits(axes.device) {
            why = format!("it has no workload for {}", axes.device);
            continue;
        }
        let varied = named_axes(case, &sets, &own, &axes);
        let id = id(&case.name, &varied, &axes);
        if !seen.insert(id.clone()) {
            return Err(MatrixError::Twice { id });
        }
        cells.push(Cell { id, case: case.name.clone(), axes, varied });
    }
    if cells.is_empty() {
        Err(MatrixError::Empty { case: case.name.clone(), why })
    } else {
        Ok(cells)
    }
}

/// What the case itself gives on each axis that it does not vary.
fn own_values(case: &Case) -> Axes {
    case.axes.product().into_iter().next().unwrap_or_default()
}

/// The axes that tell this cell from the case's others: those that the case varies, and those
/// where the command line asked for something that the case would not have.
fn named_axes(case: &Case, sets: &AxisSets, own: &Axes, axes: &Axes) -> Vec<Axis> {
    Axis::ALL
        .into_iter()
        .filter(|axis| {
            *axis == Axis::Kernel
                || case.axes.count(*axis) > 1
                || match axis {
                    // What runs a guest's instructions is no part of what is tested, unless it is varied.
                    Axis::Accelerator => sets.count(*axis) > 1,
                    _ => axis.value(axes) != axis.value(own),
                }
        })
        .collect()
}

fn id(case: &str, varied: &[Axis], axes: &Axes) -> String {
    // Safe in a shell and in a file's name.
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    let safe = |text: String| text.replace(|c: char| !fits(c), "_");
    let words: Vec<String> =
        varied.iter().map(|axis| format!("{axis}={}", safe(axis.value(axes)))).collect();
    format!("{case}/{}", words.join(","))
}

/// Adds an override as the command line gives it, `caching-mode=on,off`, to `into`.
///
/// # Errors
/// [`MatrixError::BadOverride`] that names what would have been right, also for an axis that was
/// given before or a value that stands twice.
pub fn parse_override(text: &str, into: &mut AxisSets) -> Result<(), MatrixError> {
    let bad = |why: String| MatrixError::BadOverride { text: shown(text), why };
    let Some((axis, values)) = text.split_once('=') else {
        return Err(bad("write axis=value or axis=value,value".to_owned()));
    };
    let place = Place { line: 1, column: 1 };
    let part = |text: &str| Part {
        place,
        node: Node::Scalar { text: text.trim().to_owned(), plain: true },
    };
    let items = values.split(',').map(part).enumerate().collect();
    let value = Part { place, node: Node::List(items) };
    let entry = Entry { key: axis.trim().replace('_', "-"), key_place: place, value };
    let root = Part { place, node: Node::Map(vec![entry]) };
    let sets = match read::<AxisSets>(&root) {
        (Some(sets), mistakes) if mistakes.is_empty() => sets,
        (_, mistakes) => {
            let why: Vec<String> = mistakes.into_iter().map(|mistake| mistake.what).collect();
            return Err(bad(why.join("; ")));
        }
    };
    if !sets.repeated().is_empty() {
        return Err(bad("a value stands twice".to_owned()));
    }
    if let Some((_, what)) = sets.out_of_range().first() {
        return Err(bad((*what).to_owned()));
    }
    if let Some(axis) = sets.given().into_iter().find(|axis| into.count(*axis) > 0) {
        return Err(bad(format!("{axis} was given before: write all values in one list")));
    }
    *into = into.replaced_by(&sets);
    Ok(())
}

/// The cells that `patterns` name, in the order of `cells`; all where there is no pattern. A
/// pattern is an id, a glob (`*`, `?`), or a part of ids.
///
/// # Errors
/// [`MatrixError::Unknown`] for the first pattern that fits none.
pub fn select<'a>(cells: &'a [Cell], patterns: &[String]) -> Result<Vec<&'a Cell>, MatrixError> {
    let mut picked = vec![patterns.is_empty(); cells.len()];
    for pattern in patterns {
        let found = matching(cells, pattern);
        if found.is_empty() {
            let near = nearest_ids(cells, pattern);
            return Err(MatrixError::Unknown { pattern: shown(pattern), near });
        }
        for index in found {
            picked[index] = true;
        }
    }
    Ok(cells.iter().zip(picked).filter_map(|(cell, picked)| picked.then_some(cell)).collect())
}

/// The one cell that `pattern` names.
///
/// # Errors
/// [`MatrixError::Unknown`] where none does, [`MatrixError::Ambiguous`] where several do.
pub fn select_one<'a>(cells: &'a [Cell], pattern: &str) -> Result<&'a Cell, MatrixError> {
    match &*select(cells, &[pattern.to_owned()])? {
        [one] => Ok(one),
        several => Err(MatrixError::Ambiguous {
            pattern: shown(pattern),
            count: several.len(),
            some: several.iter().take(4).map(|cell| cell.id.clone()).collect(),
        }),
    }
}

fn matching(cells: &[Cell], pattern: &str) -> Vec<usize> {
    let all = |fits: &dyn Fn(&str) -> bool| -> Vec<usize> {
        (0..cells.len()).filter(|index| fits(&cells[*index].id)).collect()
    };
    let exact = all(&|id| id == pattern);
    if !exact.is_empty() {
        return exact;
    }
    if pattern.contains(['*', '?']) {
        let pattern: Vec<char> = pattern.chars().collect();
        return all(&|id| glob(&pattern, id));
    }
    all(&|id| !pattern.is_empty() && id.contains(pattern))
}

/// Whether a glob fits the whole of `text`, in time that grows with the product of their lengths.
fn glob(pattern: &[char], text: &str) -> bool {
    let mut reached = vec![false; pattern.len() + 1];
    let spread = |reached: &mut [bool]| {
        for i in 0..pattern.len() {
            if reached[i] && pattern[i] == '*' {
                reached[i + 1] = true;
            }
        }
    };
    reached[0] = true;
    spread(&mut reached);
    for c in text.chars() {
        let mut next = vec![false; pattern.len() + 1];
        for (i, p) in pattern.iter().enumerate().filter(|(i, _)| reached[*i]) {
            match p {
                '*' => next[i] = true,
                '?' => next[i + 1] = true,
                p => next[i + 1] |= *p == c,
            }
        }
        spread(&mut next);
        reached = next;
    }
    reached[pattern.len()]
}

fn nearest_ids(cells: &[Cell], pattern: &str) -> Vec<String> {
    let mut ids: Vec<(usize, &str)> =
        cells.iter().take(1000).map(|cell| (distance(pattern, &cell.id), &*cell.id)).collect();
    ids.sort_unstable();
    ids.into_iter().take(3).map(|(_, id)| id.to_owned()).collect()
}
