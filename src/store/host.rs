//! The name of this machine.

/// The machine's name with what is fit for file names, message ids and host names; `localhost`
/// when it has none.
pub(crate) fn name() -> String {
    clean(&rustix::system::uname().nodename().to_string_lossy())
}

fn clean(name: &str) -> String {
    let name: String = name
        .chars()
        .take(64)
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    match name.trim_matches(['.', '-']) {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_become_harmless() {
        assert_eq!(clean("box.example.org"), "box.example.org");
        assert_eq!(clean("../a/b:c"), "a-b-c");
        assert_eq!(clean(""), "localhost");
        assert!(!name().is_empty());
    }
}
