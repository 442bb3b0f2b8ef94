//! `depends_on`: every name exists, and nothing waits for itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::ComposeError;
use crate::shapes::{self, Notes, wrong};
use crate::yaml::{Node, Value};

/// Reads `depends_on` in both forms, as names.
pub(crate) fn depends_on(
    node: &Node,
    services: &BTreeSet<String>,
    notes: &mut Notes,
) -> Result<Vec<String>, ComposeError> {
    let mut out = Vec::new();
    let mut add = |line: usize, column: usize, name: &str| {
        if !services.contains(name) {
            let message = format!("the service `{name}` does not exist; expected one of this file");
            return Err(ComposeError::new(line, column, message));
        }
        out.push(name.to_owned());
        Ok(())
    };
    match &node.value {
        Value::Map(entries) => {
            for (key, value) in entries {
                add(key.line, key.column, &key.text)?;
                let Some(condition) = value.get("condition") else { continue };
                match shapes::string(condition, "condition")? {
                    "service_started" => {}
                    "service_healthy" | "service_completed_successfully" => notes.warn(
                        condition.line,
                        condition.column,
                        "devices wait until the service is started, not for this condition",
                    ),
                    _ => {
                        let expected =
                            "service_started, service_healthy or service_completed_successfully";
                        return Err(wrong(condition, "condition", expected));
                    }
                }
            }
        }
        _ => {
            for item in shapes::list(node, "depends_on")? {
                add(item.line, item.column, shapes::string(item, "depends_on")?)?;
            }
        }
    }
    Ok(out)
}

/// The services of a cycle, in order, if there is one.
pub(crate) fn cycle(edges: &BTreeMap<&str, Vec<&str>>) -> Option<Vec<String>> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for start in edges.keys() {
        // Path of (service, next edge to follow); no recursion, so length costs no stack.
        let mut path: Vec<(&str, usize)> = vec![(start, 0)];
        while let Some((name, next)) = path.last().copied() {
            let target = edges.get(name).and_then(|t| t.get(next)).copied();
            if let Some(last) = path.last_mut() {
                last.1 += 1;
            }
            match target {
                None => {
                    done.insert(name);
                    path.pop();
                }
                Some(target) if done.contains(target) => {}
                Some(target) => {
                    if let Some(at) = path.iter().position(|(n, _)| *n == target) {
                        let names = path[at..].iter().map(|(n, _)| n.to_string());
                        return Some(names.chain([target.to_owned()]).collect());
                    }
                    path.push((target, 0));
                }
            }
        }
    }
    None
}
