//! Which stages a build needs, in order, and what each begins with.

use std::collections::{BTreeMap, BTreeSet};

use crate::ast::{Dockerfile, Instruction, Stage};
use crate::error::ParseError;
use crate::expand;

/// What a stage begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage, by index.
    Stage(usize),
    /// An image, by name.
    Image(String),
}

/// Where `COPY --from` and `RUN --mount=from=` take files from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A stage, by index.
    Stage(usize),
    /// An image, by name.
    Image(String),
}

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Stages that are needed, each after those it needs; the last is the target.
    pub order: Vec<usize>,
    /// What every stage of the file begins with, and its platform.
    pub bases: Vec<(Base, Option<String>)>,
    /// `ARG`s before the first `FROM`, with values.
    pub globals: BTreeMap<String, String>,
}

impl Plan {
    /// The stage whose result is the image.
    pub fn target(&self) -> usize {
        self.order.last().copied().unwrap_or(0)
    }
}

/// Resolves names. `given` are build arguments; `builtin` are variables that exist without being
/// declared in `FROM` lines, such as `TARGETPLATFORM`.
pub fn plan(
    file: &Dockerfile,
    target: Option<&str>,
    given: &BTreeMap<String, String>,
    builtin: &BTreeMap<String, String>,
) -> Result<Plan, ParseError> {
    let globals = globals(file, given, builtin)?;
    let lookup = |name: &str| globals.get(name).cloned().or_else(|| builtin.get(name).cloned());
    let mut bases = Vec::new();
    for (index, stage) in file.stages.iter().enumerate() {
        bases.push(base(file, index, stage, &lookup)?);
    }
    let last = file.stages.len().saturating_sub(1);
    let target = match target.filter(|t| !t.is_empty()) {
        None => last,
        Some(name) => stage_index(file, name, file.stages.len()).ok_or_else(|| {
            let span = file.stages[last].span;
            let known: Vec<&str> =
                file.stages.iter().filter_map(|s| s.from.name.as_deref()).collect();
            let message =
                format!("the stage `{name}` does not exist; expected one of {}", known.join(", "));
            ParseError::new(span.line, span.column, message)
        })?,
    };
    Ok(Plan { order: order(file, &bases, target), bases, globals })
}

fn globals(
    file: &Dockerfile,
    given: &BTreeMap<String, String>,
    builtin: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ParseError> {
    let mut out: BTreeMap<String, String> = BTreeMap::new();
    for arg in &file.global_args {
        let value = match (given.get(&arg.name), &arg.default) {
            (Some(value), _) => Some(value.clone()),
            (None, Some(default)) => {
                let lookup =
                    |name: &str| out.get(name).cloned().or_else(|| builtin.get(name).cloned());
                let value = expand::word(default, file.escape, &lookup);
                Some(value.map_err(|e| ParseError::new(1, 1, format!("ARG {}: {e}", arg.name)))?)
            }
            (None, None) => builtin.get(&arg.name).cloned(),
        };
        if let Some(value) = value {
            out.insert(arg.name.clone(), value);
        }
    }
    Ok(out)
}

fn base(
    file: &Dockerfile,
    index: usize,
    stage: &Stage,
    lookup: expand::Lookup<'_>,
) -> Result<(Base, Option<String>), ParseError> {
    let span = stage.span;
    let expanded = |text: &str| {
        expand::word(text, file.escape, lookup)
            .map_err(|e| ParseError::new(span.line, span.column, e.to_string()))
    };
    let image = expanded(&stage.from.image)?;
    if image.is_empty() {
        let message = format!(
            "the image `{}` is empty once variables are filled in; expected a name",
            stage.from.image
        );
        return Err(ParseError::new(span.line, span.column, message));
    }
    let platform = stage.from.platform.as_deref().map(expanded).transpose()?;
    let platform = platform.filter(|p| !p.is_empty());
    let named = |s: &Stage| s.from.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(&image));
    let base = match file.stages[..index].iter().rposition(named) {
        Some(earlier) => Base::Stage(earlier),
        None if image == "scratch" => Base::Scratch,
        None => Base::Image(image),
    };
    Ok((base, platform))
}

/// A stage before `limit`, by name or number.
fn stage_index(file: &Dockerfile, name: &str, limit: usize) -> Option<usize> {
    let named = |s: &Stage| s.from.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name));
    let stages = &file.stages[..limit];
    stages.iter().rposition(named).or_else(|| name.parse().ok().filter(|n| *n < limit))
}

/// What `--from=name` means in stage `index`.
pub fn origin(file: &Dockerfile, index: usize, name: &str) -> Origin {
    match stage_index(file, name, index) {
        Some(stage) => Origin::Stage(stage),
        None => Origin::Image(name.to_owned()),
    }
}

/// Everything that stage `index` takes files from, by name.
pub fn origins(stage: &Stage) -> Vec<&str> {
    let mut out = Vec::new();
    for node in &stage.nodes {
        match &node.instruction {
            Instruction::Copy(copy) => out.extend(copy.flags.from.as_deref()),
            Instruction::Run(run) => {
                out.extend(run.mounts.iter().filter_map(|m| m.from.as_deref()))
            }
            _ => {}
        }
    }
    out
}

fn order(file: &Dockerfile, bases: &[(Base, Option<String>)], target: usize) -> Vec<usize> {
    // A stage only refers to earlier ones, so file order is build order.
    let mut needed = BTreeSet::from([target]);
    for index in (0..=target).rev() {
        if !needed.contains(&index) {
            continue;
        }
        if let Base::Stage(earlier) = bases[index].0 {
            needed.insert(earlier);
        }
        for name in origins(&file.stages[index]) {
            if let Origin::Stage(earlier) = origin(file, index, name) {
                needed.insert(earlier);
            }
        }
    }
    needed.into_iter().collect()
}
