//! The facts that a choice is made from, as a file has them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use qspinlock::select::{Facts, Features, Hypervisor, Setting, Wishes};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::failure::Failure;

/// More than the lock word has room for.
const MOST_CPUS: u32 = 1 << 19;
/// More than any kernel counts.
const MOST_DOMAINS: u32 = 1 << 10;
/// Facts are short.
const MOST_BYTES: u64 = 1 << 16;

/// What is known of a machine. `None` is unknown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Known {
    #[serde(serialize_with = "name")]
    pub(super) hypervisor: Hypervisor,
    pub(super) wait_kick: Option<bool>,
    pub(super) dedicated_hint: Option<bool>,
    pub(super) local_apic: Option<bool>,
    pub(super) cluster_ipi: Option<bool>,
    pub(super) guest_idle: Option<bool>,
    pub(super) process: Waiters,
    pub(super) kernel: Waiters,
}

/// Who would wait: the threads of a process, or a kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Waiters {
    pub(super) cpus: Option<u32>,
    pub(super) domains: Option<u32>,
    #[serde(serialize_with = "words")]
    pub(super) wishes: Option<Wishes>,
}

fn name<S: Serializer>(hypervisor: &Hypervisor, to: S) -> Result<S::Ok, S::Error> {
    Some(hypervisor).filter(|h| **h != Hypervisor::Unknown).map(|h| h.name()).serialize(to)
}

fn words<S: Serializer>(wishes: &Option<Wishes>, to: S) -> Result<S::Ok, S::Error> {
    wishes.map(|wishes| wishes.to_string()).serialize(to)
}

impl Known {
    pub(super) fn of(&self, setting: Setting) -> Facts {
        let who = match setting {
            Setting::Kernel => &self.kernel,
            Setting::UserSpace => &self.process,
        };
        let mut facts = Facts::new(setting, who.cpus.unwrap_or(0));
        facts.domains = who.domains.unwrap_or(0);
        facts.hypervisor = self.hypervisor;
        facts.features = self.features();
        facts.wishes = who.wishes.unwrap_or(Wishes::NONE);
        facts
    }

    fn features(&self) -> Features {
        let mut features = Features::NONE;
        features.wait_kick = self.wait_kick == Some(true);
        features.dedicated_hint = self.dedicated_hint == Some(true);
        features.local_apic = self.local_apic == Some(true);
        features.cluster_ipi = self.cluster_ipi == Some(true);
        features.guest_idle = self.guest_idle == Some(true);
        features
    }

    fn named_features(&self) -> [(&'static str, Option<bool>); 5] {
        [
            ("wait_kick", self.wait_kick),
            ("dedicated_hint", self.dedicated_hint),
            ("local_apic", self.local_apic),
            ("cluster_ipi", self.cluster_ipi),
            ("guest_idle", self.guest_idle),
        ]
    }

    /// Who is beneath, and which of its features are known.
    pub(super) fn beneath(&self) -> String {
        let known = self.named_features().into_iter().filter_map(|(name, feature)| Some((name, feature?)));
        known.fold(self.hypervisor.name().to_owned(), |shown, (name, feature)| {
            format!("{shown}, {name}: {}", if feature { "yes" } else { "no" })
        })
    }

    /// From a file, or standard input for `-`.
    pub(super) fn read(file: &Path) -> Result<Self, Failure> {
        let refuse = |why: String| Failure::usage(format!("--facts: {}: {why}", file.display()));
        let source = if file == Path::new("-") {
            Ok(Box::new(std::io::stdin()) as Box<dyn Read>)
        } else {
            File::open(file).map(|file| Box::new(file) as Box<dyn Read>)
        };
        let mut bytes = Vec::new();
        let read = source.and_then(|source| source.take(MOST_BYTES + 1).read_to_end(&mut bytes));
        read.map_err(|error| refuse(error.to_string()))?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(refuse(format!("longer than {MOST_BYTES} bytes: facts are one short JSON object")));
        }
        let mut value: Value =
            serde_json::from_slice(&bytes).map_err(|error| refuse(format!("it is not JSON: {error}")))?;
        // All that --json prints: the facts are a part of it.
        if value.get("choices").is_some()
            && let Some(facts) = value.get_mut("facts")
        {
            value = facts.take();
        }
        Self::parse(value).map_err(refuse)
    }

    fn parse(value: Value) -> Result<Self, String> {
        let mut fields = Fields::new(String::new(), value)?;
        let known = Self {
            hypervisor: fields.hypervisor()?,
            wait_kick: fields.flag("wait_kick")?,
            dedicated_hint: fields.flag("dedicated_hint")?,
            local_apic: fields.flag("local_apic")?,
            cluster_ipi: fields.flag("cluster_ipi")?,
            guest_idle: fields.flag("guest_idle")?,
            process: Waiters::parse(fields.object("process")?)?,
            kernel: Waiters::parse(fields.object("kernel")?)?,
        };
        fields.end()?;
        known.check()?;
        Ok(known)
    }

    /// A feature that nobody offers would be ignored, and whoever wrote it would not know.
    fn check(&self) -> Result<(), String> {
        for (name, feature) in self.named_features() {
            let whose = match name {
                "wait_kick" | "dedicated_hint" => Hypervisor::Kvm,
                "cluster_ipi" | "guest_idle" => Hypervisor::HyperV,
                _ => continue,
            };
            if feature == Some(true) && self.hypervisor != whose {
                return Err(format!(
                    "`{name}` is true, and `hypervisor` is {}: only `{}` has it; leave it out, or write false",
                    self.hypervisor.name(),
                    whose.name()
                ));
            }
        }
        Ok(())
    }
}

impl Waiters {
    fn parse(fields: Option<Fields>) -> Result<Self, String> {
        let Some(mut fields) = fields else { return Ok(Self::default()) };
        let cpus = fields.number("cpus", MOST_CPUS)?;
        let domains = fields.number("domains", MOST_DOMAINS)?;
        if let (Some(cpus), Some(domains)) = (cpus, domains)
            && domains > cpus
        {
            let path = &fields.path;
            return Err(format!("`{path}domains` is {domains}: each has a CPU, and `{path}cpus` is {cpus}"));
        }
        let wishes = fields.wishes()?;
        fields.end()?;
        Ok(Self { cpus, domains, wishes })
    }
}

/// The fields of an object that nobody has asked for yet.
struct Fields {
    /// What stands before their names.
    path: String,
    left: Map<String, Value>,
    asked: Vec<&'static str>,
}

impl Fields {
    fn new(path: String, value: Value) -> Result<Self, String> {
        match value {
            Value::Object(left) => Ok(Self { path, left, asked: Vec::new() }),
            other if path.is_empty() => Err(format!("it is {other}: write an object, {{...}}")),
            other => Err(format!("`{}` is {other}: write an object, {{...}}", path.trim_end_matches('.'))),
        }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.asked.push(name);
        self.left.remove(name).filter(|value| !value.is_null())
    }

    /// A field of which `read` makes sense, or else `accepted` says what does.
    fn read<T>(
        &mut self,
        name: &'static str,
        accepted: impl FnOnce() -> String,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(format!("`{}{name}` is {value}: {}", self.path, accepted())),
        }
    }

    fn flag(&mut self, name: &'static str) -> Result<Option<bool>, String> {
        self.read(name, || "write true or false".into(), Value::as_bool)
    }

    fn number(&mut self, name: &'static str, most: u32) -> Result<Option<u32>, String> {
        let in_range = |value: &Value| value.as_u64().filter(|n| (1..=most.into()).contains(n)).map(|n| n as u32);
        self.read(name, || format!("write a whole number from 1 to {most}"), in_range)
    }

    fn hypervisor(&mut self) -> Result<Hypervisor, String> {
        let by_name = |name: &str| Hypervisor::ALL.iter().copied().find(|hypervisor| hypervisor.name() == name);
        let accepted = || {
            let names: Vec<_> = Hypervisor::ALL.iter().map(|hypervisor| hypervisor.name()).collect();
            format!("choose from {}", names.join(" "))
        };
        let read = self.read("hypervisor", accepted, |value| value.as_str().and_then(by_name))?;
        Ok(read.unwrap_or(Hypervisor::Unknown))
    }

    fn wishes(&mut self) -> Result<Option<Wishes>, String> {
        let path = format!("{}wishes", self.path);
        let text = self.read(
            "wishes",
            || "write words, separated by commas".into(),
            |value| value.as_str().map(str::to_owned),
        )?;
        text.map(|text| text.parse().map_err(|why| format!("`{path}`: {why}"))).transpose()
    }

    fn object(&mut self, name: &'static str) -> Result<Option<Self>, String> {
        let path = format!("{}{name}.", self.path);
        self.take(name).map(|value| Self::new(path, value)).transpose()
    }

    /// Nothing may be left.
    fn end(self) -> Result<(), String> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => {
                let name = name.escape_debug();
                Err(format!("there is no field `{}{name}`: choose from {}", self.path, self.asked.join(" ")))
            }
        }
    }
}
