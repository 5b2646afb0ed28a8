//! Manifests as YAML, for `kubectl apply -f -`.

use super::manifests::{Manifests, Object};

const HEAD: &str = "\
# A run of Plimsoll, rendered by `plimsoll kube`: pipe it into `kubectl apply -f -`, read the answer in the log of the
# coordinator's Job, and remove it with `kubectl delete -f -`.
# Agents request processors and have no limit of them: the quota of a limit stops a process for the rest of each period of
# 100 ms once it is used up, which is lateness, and voids what is measured. Keep LimitRanges that add one away from them.
";
const WITH_KEYS: &str = "\
# The Secrets hold private keys that were made for this run alone; nothing outside it knows their CA.
";

/// One document each, in the order in which they are to be made.
///
/// # Errors
/// An object that YAML has no words for, which there is none of.
pub fn render(manifests: &Manifests) -> Result<String, String> {
    let has_keys = manifests.objects.iter().any(|object| matches!(object, Object::Secret(_)));
    let mut text = format!("{HEAD}{}", if has_keys { WITH_KEYS } else { "" });
    for object in &manifests.objects {
        let yaml = match object {
            Object::NetworkPolicy(object) => serde_saphyr::to_string(object),
            Object::ConfigMap(object) => serde_saphyr::to_string(object),
            Object::Secret(object) => serde_saphyr::to_string(object),
            Object::Service(object) => serde_saphyr::to_string(object),
            Object::Job(object) => serde_saphyr::to_string(object),
        };
        let yaml = yaml.map_err(|error| format!("{} cannot be rendered: {error}", object.name()))?;
        text.push_str("---\n");
        text.push_str(yaml.trim_end());
        text.push('\n');
    }
    Ok(text)
}
