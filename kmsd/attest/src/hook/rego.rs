//! Release policies in Rego, evaluated on `regorus`.
//!
//! A policy is of package `policy` and declares `allow`; it may declare `deny`, a set of texts:
//!
//! ```rego
//! package policy
//!
//! default allow := false
//!
//! allow if {
//!     input.root == "vendor"
//!     input.measurement == "5feee30d…"
//!     input.snp.reported_tcb.snp >= 22
//! }
//!
//! deny contains "memory aliasing was not checked" if {
//!     not input.snp.platform_info.alias_check_complete
//! }
//! ```
//!
//! Allowed means that `allow` is exactly `true` and `deny` is empty or not declared. Everything else,
//! an error or a timeout included, is a denial.
//!
//! # Input
//!
//! `input` is the document of a [`kms_core::claims::Examination`]:
//!
//! | member | is |
//! |---|---|
//! | `kind` | `"snp"` |
//! | `root` | `"vendor"` or `"development"` |
//! | `evidence_digest`, `measurement`, `report_data` | lower-case hexadecimal |
//! | `not_established` | names of the checks that could not be made |
//! | `snp` | the report, field by field, with the names of the firmware ABI in lower case |
//!
//! In `snp`: `version`, `guest_svn`, `vmpl`, `signing_key` (`"vcek"`, `"vlek"`), `mask_chip_key`,
//! `author_key_en`, `chip_id_masked`, `product` (`"Milan"`, `"Genoa"`, `"Turin"`); hexadecimal
//! `family_id`, `image_id`, `report_data`, `measurement`, `host_data`, `id_key_digest`,
//! `author_key_digest`, `report_id`, `report_id_ma`, `chip_id`; the objects `current_tcb`,
//! `committed_tcb`, `reported_tcb`, `launch_tcb` (`boot_loader`, `tee`, `snp`, `microcode`, on Turin
//! also `fmc`), `current_version`, `committed_version` (`major`, `minor`, `build`), `cpuid`
//! (`family`, `model`, `stepping`; null before version 3), `policy` (`value`, `abi_major`,
//! `abi_minor`, `smt_allowed`, `migrate_ma_allowed`, `debug_allowed`, `single_socket_required`,
//! `cxl_allowed`, `mem_aes_256_xts_required`, `rapl_disabled`, `ciphertext_hiding_dram_required`,
//! `page_swap_disabled`), `platform_info` (`value`, `smt_enabled`, `tsme_enabled`, `ecc_enabled`,
//! `rapl_disabled`, `ciphertext_hiding_dram_enabled`, `alias_check_complete`, `tio_enabled`,
//! `unknown_bits`), `vek` (`source`, `sha256`, `kind`, `hardware_id`, `operator`); and
//! `launch_mitigation_vector`, `current_mitigation_vector` (numbers; null before version 5).
//!
//! # Bounds
//!
//! Time: [`TIME_MAX`], looked at before every step. Memory: the text is at most
//! [`POLICY_BYTES_MAX`] long with at most [`WORDS_MAX`] words and brackets nested [`NESTING_MAX`] deep,
//! the input is ours and small, and the builtins `concat`, `replace`, `numbers.range` and `bits.lsh`,
//! which make much out of little in one step, are refused when the policy is compiled. That leaves
//! `sprintf`, which an author could still use to fill memory within the time: policies are set by
//! people with a role, under audit, and are not taken from workloads. There is no builtin that reaches
//! network, files, the clock or randomness.

use core::num::NonZeroU32;
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kms_core::claims::HookAnswer;
use kms_core::key::POLICY_BYTES_MAX;
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};

use crate::PolicyError;

/// A compiled policy.
#[derive(Clone)]
pub struct Policy {
    engine: Engine,
}

impl core::fmt::Debug for Policy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Policy")
    }
}

impl Policy {
    /// Compiles a policy.
    ///
    /// # Errors
    /// [`PolicyError`] when it is too long, not Rego, of another package, has no rule `allow`, or
    /// uses a builtin that it may not use.
    pub fn compile(text: &str) -> Result<Self, PolicyError> {
        if text.len() > POLICY_BYTES_MAX || words(text).count() > WORDS_MAX {
            return Err(PolicyError::TooLong);
        }
        if nesting(text) > NESTING_MAX {
            return Err(PolicyError::TooDeep);
        }
        if let Some(word) = REFUSED.into_iter().find(|refused| words(text).any(|w| w == *refused)) {
            return Err(PolicyError::Builtin(word));
        }
        contained(|| Self::load(text)).unwrap_or_else(|| Err(syntax("the interpreter failed")))
    }

    fn load(text: &str) -> Result<Self, PolicyError> {
        let mut engine = Engine::new();
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: TIME_MAX,
            check_interval: NonZeroU32::MIN,
        });
        engine.set_strict_builtin_errors(true);
        let package = engine.add_policy(FILE.to_owned(), text.to_owned()).map_err(syntax)?;
        if package != "data.policy" {
            return Err(PolicyError::Package(shorten(&package)));
        }
        if !engine.has_declared_rule_rooted_at(FILE, "allow").map_err(syntax)? {
            return Err(PolicyError::NoAllow);
        }
        Ok(Self { engine })
    }

    /// Asks the policy about the document of an examination.
    pub fn evaluate(&self, document: &serde_json::Value) -> HookAnswer {
        contained(|| self.ask(document))
            .unwrap_or_else(|| deny("the policy could not be evaluated: the interpreter failed"))
    }

    fn ask(&self, document: &serde_json::Value) -> HookAnswer {
        // A copy for each question: an evaluation leaves its results behind in the engine.
        let mut engine = self.engine.clone();
        engine.set_input(Value::from(document.clone()));
        let (allowed, denials) = match (query(&mut engine, ALLOW), query(&mut engine, DENY)) {
            (Ok(allowed), Ok(denials)) => (allowed, denials),
            (Err(error), _) | (_, Err(error)) => return deny(&error),
        };
        let mut reasons = match denials {
            None => Vec::new(),
            Some(Value::Set(texts)) => {
                let texts = texts.iter().take(REASONS_MAX);
                let text = |text: &Value| {
                    text.as_string().map_or_else(|_| NOT_A_TEXT.into(), |t| shorten(t))
                };
                texts.map(text).collect()
            }
            Some(_) => vec!["`deny` is not a set of texts".to_owned()],
        };
        match allowed {
            Some(Value::Bool(true)) if reasons.is_empty() => return HookAnswer::Allow,
            Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => reasons.push("`allow` is false".to_owned()),
            None => reasons.push("`allow` is undefined".to_owned()),
            Some(_) => reasons.push("`allow` is not true or false".to_owned()),
        }
        HookAnswer::Deny(reasons)
    }
}

/// The value of a rule; `None` when it is undefined or not declared.
fn query(engine: &mut Engine, rule: &str) -> Result<Option<Value>, String> {
    let results = engine.eval_query(rule.to_owned(), false).map_err(|error| {
        let cause = error.root_cause().to_string();
        format!("the policy could not be evaluated: {}", shorten(cause.trim()))
    })?;
    let value = results.result.into_iter().next().and_then(|r| r.expressions.into_iter().next());
    Ok(value.map(|expression| expression.value).filter(|value| *value != Value::Undefined))
}

/// Runs the interpreter on a thread of its own, whose stack is deep enough for the longest chain of
/// rules that a policy can hold, and takes a panic of it for a failure.
fn contained<T: Send>(run: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("release-policy".into()).stack_size(STACK);
        let run = || catch_unwind(AssertUnwindSafe(run)).ok();
        thread.spawn_scoped(scope, run).ok()?.join().ok().flatten()
    })
}

fn deny(reason: &str) -> HookAnswer {
    HookAnswer::Deny(vec![reason.to_owned()])
}

fn syntax(error: impl ToString) -> PolicyError {
    PolicyError::Syntax(shorten(error.to_string().trim()))
}

fn shorten(text: &str) -> String {
    text.chars().take(REASON_CHARS_MAX).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// How deep brackets stand in brackets, outside texts and comments.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut inside = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (inside, c) {
            (Some('"'), '\\') => drop(characters.next()),
            (Some(end), c) if c == end => inside = None,
            (Some(_), _) => {}
            (None, '"' | '`') => inside = Some(c),
            (None, '#') => inside = Some('\n'),
            (None, '(' | '[' | '{') => depth = depth.saturating_add(1),
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, _) => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

const ALLOW: &str = "data.policy.allow";
const DENY: &str = "data.policy.deny";
const FILE: &str = "policy.rego";
/// Longest evaluation of one rule.
pub const TIME_MAX: Duration = Duration::from_millis(100);
/// Most words in a policy; bounds how many rules can call each other in a row.
pub const WORDS_MAX: usize = 8192;
/// Deepest nesting of brackets; the interpreter's parser takes time exponential in it.
pub const NESTING_MAX: usize = 10;
/// Words that no policy may hold: the last part of the names of builtins that make much out of
/// little in one step, and of the one that draws randomness.
const REFUSED: [&str; 7] = ["concat", "intn", "lsh", "range", "range_step", "replace", "replace_n"];
const REASONS_MAX: usize = 16;
const REASON_CHARS_MAX: usize = 256;
const NOT_A_TEXT: &str = "`deny` holds something that is not a text";
const STACK: usize = 512 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(text: &str, input: serde_json::Value) -> HookAnswer {
        Policy::compile(text).unwrap().evaluate(&input)
    }

    fn denied(text: &str) -> Vec<String> {
        match ask(text, json!({})) {
            HookAnswer::Deny(reasons) => reasons,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_allow_true_with_nothing_to_deny_allows() {
        let policy = "package policy\nallow if input.a >= 8\ndeny contains \"b\" if input.b";
        assert_eq!(ask(policy, json!({"a": 8})), HookAnswer::Allow);
        assert_eq!(ask(policy, json!({"a": 8, "b": true})), HookAnswer::Deny(vec!["b".into()]));
        assert!(matches!(ask(policy, json!({"a": 7})), HookAnswer::Deny(_)));
        assert!(matches!(ask(policy, json!({})), HookAnswer::Deny(_)));
        assert!(matches!(ask(policy, json!(null)), HookAnswer::Deny(_)));
    }

    #[test]
    fn anything_else_is_a_denial() {
        for (text, reason) in [
            ("allow := 1", "`allow` is not true or false"),
            ("allow := \"true\"", "`allow` is not true or false"),
            ("allow := false", "`allow` is false"),
            ("allow if input.x", "`allow` is undefined"),
            ("allow := true\ndeny := \"no\"", "`deny` is not a set of texts"),
            ("allow := true\ndeny contains 1", NOT_A_TEXT),
            ("allow if to_number(\"x\") == 1", "the policy could not be evaluated"),
            ("allow := true\nallow := false", "the policy could not be evaluated"),
        ] {
            let reasons = denied(&format!("package policy\n{text}"));
            assert!(reasons[0].starts_with(reason), "{text}: {reasons:?}");
        }
    }

    #[test]
    fn what_is_not_a_policy_does_not_compile() {
        let long = format!("package policy\nallow := true\n# {}", "x".repeat(POLICY_BYTES_MAX));
        for text in ["", "package", "package policy", "package policy\nallow if {", "\0", &long] {
            assert!(Policy::compile(text).is_err(), "{text:.40}");
        }
        let other = Policy::compile("package other\nallow := true").unwrap_err();
        assert_eq!(other, PolicyError::Package("data.other".into()));
    }

    #[test]
    fn policies_reach_nothing_outside() {
        for call in [
            "http.send({\"method\": \"get\", \"url\": \"http://localhost\"})",
            "time.now_ns()",
            "opa.runtime()",
            "rand.intn(\"x\", 2)",
            "numbers.range(1, 1000000000)",
            "bits.lsh(1, 4000000000)",
            "net.lookup_ip_addr(\"localhost\")",
        ] {
            let text = format!("package policy\nallow if {{ x := {call}; x != null }}");
            let refused = match Policy::compile(&text) {
                Err(_) => true,
                Ok(policy) => matches!(policy.evaluate(&json!({})), HookAnswer::Deny(_)),
            };
            assert!(refused, "{call}");
        }
    }

    #[test]
    fn endless_work_is_cut_off() {
        let list = (0..300).map(|n| n.to_string()).collect::<Vec<_>>().join(",\n");
        let text = format!(
            "package policy\nl := [{list}]\nallow if {{ some a in l; some b in l; some c in l; \
             some d in l; a + b + c + d == 0 - 1 }}"
        );
        let before = std::time::Instant::now();
        let reasons = denied(&text);
        assert!(reasons[0].contains("limit"), "{reasons:?}");
        assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    }

    #[test]
    fn the_longest_chain_of_rules_does_not_overflow_the_stack() {
        let chain = |length| -> String {
            let rules: String = (1..length).map(|n| format!("r{n}:=r{}\n", n - 1)).collect();
            format!("package policy\nr0:=true\n{rules}allow:=r{}", length - 1)
        };
        match ask(&chain(4094), json!({})) {
            HookAnswer::Allow => {}
            HookAnswer::Deny(reasons) => assert!(reasons[0].contains("limit"), "{reasons:?}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(ask(&chain(20), json!({})), HookAnswer::Allow);
        assert_eq!(Policy::compile(&chain(4200)).unwrap_err(), PolicyError::TooLong);
    }

    #[test]
    fn deep_nesting_is_refused_and_the_deepest_permitted_is_quick() {
        for (open, close) in [("[", "]"), ("(", ")"), ("{", "}"), ("{1:", "}"), ("[x|x:=", "]")] {
            let nested = |n| {
                let text = format!("{}1{}", open.repeat(n), close.repeat(n));
                Policy::compile(&format!("package policy\nallow := {text}"))
            };
            let before = std::time::Instant::now();
            drop(nested(NESTING_MAX));
            assert!(before.elapsed() < Duration::from_secs(5), "{open} {:?}", before.elapsed());
            assert_eq!(nested(NESTING_MAX + 1).unwrap_err(), PolicyError::TooDeep);
        }
        let text = format!("package policy\n# {0}\nallow := \"\\\"{0}\" != `{0}`", "[".repeat(99));
        assert!(Policy::compile(&text).is_ok());
    }
}
