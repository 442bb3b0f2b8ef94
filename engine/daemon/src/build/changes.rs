//! Dockerfile instructions applied to a configuration outside of a build: commit and import.

use minke_common_dockerfile::{Instruction, parse_instruction};
use minke_engine_images::ImageConfig;

use super::cache::Key;
use super::config::apply;
use super::state::State;
use crate::error::{Error, Result};

/// Most instructions of one call.
const MOST: usize = 1000;

/// A configuration after these instructions; those that would need files are refused.
pub(crate) fn with_changes(config: ImageConfig, changes: &[String]) -> Result<ImageConfig> {
    let lines: Vec<&str> = changes.iter().flat_map(|change| change.lines()).collect();
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return Ok(config);
    }
    if lines.len() > MOST {
        return Err(Error::Invalid(format!("more than {MOST} changes; that is the limit")));
    }
    let mut state = State::new(config, Key::base(None, "changes"), None, '\\');
    for line in lines {
        let invalid = |why: String| Error::Invalid(format!("invalid change {line:?}: {why}"));
        let instruction =
            parse_instruction(line, '\\').map_err(|error| invalid(error.to_string()))?;
        if let Instruction::Workdir(path) = &instruction {
            let path = state.word(path).map_err(invalid)?;
            state.config.config.working_dir = state.absolute(&path);
        } else if apply(&mut state, &instruction).map_err(invalid)?.is_none() {
            return Err(invalid(format!(
                "{} is not a valid change command",
                instruction.keyword().to_lowercase()
            )));
        }
    }
    Ok(state.config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_without_files_change_a_configuration() {
        let changes = ["USER foo\nWORKDIR /a", "WORKDIR b", r#"CMD ["echo"]"#, "EXPOSE 80"];
        let changed = with_changes(ImageConfig::default(), &changes.map(str::to_owned)).unwrap();
        assert_eq!(
            (changed.config.user.as_str(), changed.config.working_dir.as_str()),
            ("foo", "/a/b")
        );
        assert_eq!(changed.config.cmd, Some(vec!["echo".to_owned()]));
        assert!(changed.config.exposed_ports.contains_key("80/tcp"));
        for bad in ["RUN true", "COPY a b", "FROM x", "NOSUCH"] {
            assert!(with_changes(ImageConfig::default(), &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
