//! What must be known of the machine to read the figures.

use std::fs;

use serde::Serialize;

/// The machine. Nothing in it names it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// As the kernel calls the first one.
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
}

impl Machine {
    /// Looks.
    pub(crate) fn look() -> Self {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: model(&cpus).unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: release.trim().to_owned(),
        }
    }
}

/// How many processes wanted a core in the last minute, on average; none where the kernel does not
/// say.
pub(crate) fn load() -> Option<f64> {
    first_field(&fs::read_to_string("/proc/loadavg").ok()?)
}

fn first_field(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

fn model(cpus: &str) -> Option<&str> {
    let line = cpus.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, model)| model.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(first_field("0.52 0.40 0.31 2/345 6789\n"), Some(0.52));
        assert_eq!(first_field(""), None);
        let cpus = "processor\t: 0\nmodel name\t: Some CPU 3\nflags\t: a b\n";
        assert_eq!(model(cpus), Some("Some CPU 3"));
        assert_eq!(model("processor : 0"), None);
    }
}
