//! Detection of a firewall that drops what containers send and get.
//!
//! A packet must be accepted by every table; a host where another program (Docker, ufw, firewalld) lets
//! the forward hook drop by default needs a rule of its administrator. Ours never change foreign rules,
//! so this finds out and says what to do.

use std::fmt;
use std::fs;
use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

/// A forward hook that drops by default and has no rule for our bridges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardDrop {
    /// Where: `ip filter FORWARD (nftables)` or `FORWARD (iptables-legacy)`.
    pub place: String,
    /// The commands that let our traffic through.
    pub way_out: Vec<String>,
}

impl fmt::Display for ForwardDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "this host's firewall drops forwarded traffic ({}), so containers cannot reach other hosts \
             and their published ports cannot be reached from them. To let it through: {}",
            self.place,
            self.way_out.join("; ")
        )
    }
}

struct Hook {
    family: String,
    table: String,
    chain: String,
}

/// Look for one. Errors of the tools mean that nothing is known, and nothing is said.
pub(crate) async fn detect() -> Option<ForwardDrop> {
    let chains = output("nft", &["-j", "list", "chains"]).await.unwrap_or_default();
    for hook in dropping_hooks(&chains) {
        let Hook { family, table, chain } = &hook;
        let mut rules = String::new();
        for name in [chain.as_str(), "DOCKER-USER"] {
            let args = ["list", "chain", family, table, name];
            rules.push_str(&output("nft", &args).await.unwrap_or_default());
        }
        if lets_through(&rules) {
            continue;
        }
        let is_iptables = table == "filter" && chain == "FORWARD";
        let place = format!("{family} {table} {chain}, policy drop (nftables)");
        let way_out = if is_iptables {
            iptables_way_out("iptables", rules.contains("chain DOCKER-USER"))
        } else {
            ["iifname", "oifname"]
                .map(|side| {
                    format!("nft insert rule {family} {table} {chain} {side} \"mk*\" accept")
                })
                .to_vec()
        };
        return Some(ForwardDrop { place, way_out });
    }
    detect_legacy().await
}

async fn detect_legacy() -> Option<ForwardDrop> {
    let tables = fs::read_to_string(Path::new("/proc/net/ip_tables_names")).unwrap_or_default();
    if !tables.lines().any(|table| table == "filter") {
        return None;
    }
    let rules = output("iptables-legacy", &["-S"]).await?;
    if !rules.lines().any(|line| line == "-P FORWARD DROP") || lets_through(&rules) {
        return None;
    }
    Some(ForwardDrop {
        place: "FORWARD, policy drop (iptables-legacy)".to_owned(),
        way_out: iptables_way_out("iptables-legacy", rules.contains("-N DOCKER-USER")),
    })
}

fn iptables_way_out(program: &str, docker: bool) -> Vec<String> {
    let chain = if docker { "DOCKER-USER" } else { "FORWARD" };
    ["-i", "-o"].map(|side| format!("{program} -I {chain} {side} mk+ -j ACCEPT")).to_vec()
}

async fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).kill_on_drop(true).output().await.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn dropping_hooks(json: &str) -> Vec<Hook> {
    let value: Value = serde_json::from_str(json).unwrap_or_default();
    let entries = value["nftables"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |chain: &Value, key: &str| chain[key].as_str().unwrap_or_default().to_owned();
    entries
        .iter()
        .map(|entry| &entry["chain"])
        .filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop")
        .filter(|chain| chain["family"] == "ip" || chain["family"] == "inet")
        .map(|chain| Hook {
            family: text(chain, "family"),
            table: text(chain, "table"),
            chain: text(chain, "name"),
        })
        .collect()
}

/// Whether both directions of our bridges are accepted, in nft's or iptables' words.
fn lets_through(rules: &str) -> bool {
    let side = |nft: &str, iptables: &str| {
        rules.lines().any(|line| {
            let ours = line.contains(&format!("{nft} \"mk*\""))
                || line.contains(&format!("{iptables} mk+ "));
            ours && (line.contains("accept") || line.contains("ACCEPT"))
        })
    };
    side("iifname", "-i") && side("oifname", "-o")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dropping_forward_hook_counts() {
        let json = r#"{"nftables":[{"metainfo":{}},
            {"chain":{"family":"ip","table":"filter","name":"FORWARD","hook":"forward","policy":"drop"}},
            {"chain":{"family":"ip","table":"filter","name":"INPUT","hook":"input","policy":"drop"}},
            {"chain":{"family":"ip","table":"a","name":"f","hook":"forward","policy":"accept"}},
            {"chain":{"family":"ip6","table":"a","name":"f","hook":"forward","policy":"drop"}}]}"#;
        let hooks = dropping_hooks(json);
        assert_eq!(hooks.len(), 1);
        assert_eq!(hooks[0].chain, "FORWARD");
        assert!(dropping_hooks("no json").is_empty());
    }

    #[test]
    fn the_way_out_is_recognised_once_taken() {
        let nft = "iifname \"mk*\" counter packets 0 bytes 0 accept\noifname \"mk*\" accept\n";
        assert!(lets_through(nft));
        assert!(lets_through("-A FORWARD -o mk+ -j ACCEPT\n-A FORWARD -i mk+ -j ACCEPT\n"));
        assert!(!lets_through("-A FORWARD -o mk+ -j ACCEPT\n"));
        assert!(!lets_through("iifname \"mk*\" drop\noifname \"mk*\" drop\n"));
    }
}
