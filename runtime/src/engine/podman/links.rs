//! Links in a label of the recipient: Podman refuses Docker's own.

use bollard::models::ContainerInspectResponse;

use crate::model::link::parse_link;

/// The label of a recipient: its links as `SOURCE:ALIAS`, with blanks between them. `runtime run` writes the source's full
/// id, so that a link stays with its source when that is renamed; a name is understood as well.
pub const LINKS_LABEL: &str = "runtime.links";

/// What the label is to say of these links: the source's id, and the alias.
pub fn label<'a>(links: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    links.into_iter().map(|(source, alias)| format!("{source}:{alias}")).collect::<Vec<_>>().join(" ")
}

/// Puts the links of a container's label where Docker has them. What cannot be read is no link, and is logged.
pub(super) fn take_from_label(inspect: &mut ContainerInspectResponse) {
    let labels = inspect.config.as_ref().and_then(|c| c.labels.as_ref());
    let Some(text) = labels.and_then(|l| l.get(LINKS_LABEL)) else { return };
    let mut links = Vec::new();
    for spec in text.split_whitespace() {
        match parse_link(spec) {
            Ok(link) => links.push(link.to_string()),
            Err(e) => {
                let name = inspect.name.as_deref().unwrap_or_default().trim_start_matches('/');
                tracing::warn!("container {name}: label {LINKS_LABEL}: {e}");
            }
        }
    }
    inspect.host_config.get_or_insert_default().links = Some(links);
}
