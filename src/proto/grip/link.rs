//! Where a `Grip-Link` leads: only to the upstream that gave it.

use http::Uri;
use http::uri::PathAndQuery;

/// Why a link is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Another scheme, host or port.
    #[error("it leads to another server; a link must stay on its upstream, as a path such as /events?after=7")]
    Elsewhere,
    /// No reference at all.
    #[error("it is no valid path")]
    Malformed,
}

/// The path and query that `link` names, seen from `base` (RFC 3986 §5.2). An absolute URL must have one of `hosts`, the
/// authorities by which the upstream is known. A fragment is dropped.
///
/// # Errors
/// When it leads elsewhere, or nowhere.
pub fn resolve(link: &str, base: &PathAndQuery, hosts: &[&str]) -> Result<PathAndQuery, LinkError> {
    let link = link.trim();
    let link = link.split_once('#').map_or(link, |(before, _)| before);
    let path = if let Some((scheme, _)) = link.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
        let uri: Uri = link.parse().map_err(|_| LinkError::Malformed)?;
        let authority = uri.authority().ok_or(LinkError::Malformed)?;
        let default_port = match scheme.to_ascii_lowercase().as_str() {
            "http" => ":80",
            "https" => ":443",
            _ => return Err(LinkError::Elsewhere),
        };
        let bare = |host: &str| host.strip_suffix(default_port).unwrap_or(host).to_ascii_lowercase();
        if !hosts.iter().any(|host| bare(host) == bare(authority.as_str())) {
            return Err(LinkError::Elsewhere);
        }
        uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string)
    } else if link.starts_with("//") {
        return Err(LinkError::Elsewhere);
    } else if link.starts_with('/') {
        link.to_owned()
    } else if link.is_empty() {
        return Err(LinkError::Malformed);
    } else if link.starts_with('?') {
        format!("{}{link}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{folder}/{link}")
    };
    let path: PathAndQuery = path.parse().map_err(|_| LinkError::Malformed)?;
    // A target with `*` or without a leading slash is no path.
    if path.as_str().starts_with('/') { Ok(path) } else { Err(LinkError::Malformed) }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(link: &str, expected: Result<&str, LinkError>) {
        let base = PathAndQuery::from_static("/a/b?c=d");
        let found = resolve(link, &base, &["shop.example", "10.0.0.1:3000"]);
        assert_eq!(found.as_ref().map(PathAndQuery::as_str).map_err(|error| *error), expected, "{link}");
    }

    #[test]
    fn links_stay_on_their_upstream() {
        check("/p?a=1,2", Ok("/p?a=1,2"));
        check("/p#end", Ok("/p"));
        check("?after=7", Ok("/a/b?after=7"));
        check("next/2", Ok("/a/next/2"));
        check("http://SHOP.example:80/x?y", Ok("/x?y"));
        check("https://shop.example", Ok("/"));
        check("http://10.0.0.1:3000/x", Ok("/x"));
        check("/x?to=http://elsewhere/", Ok("/x?to=http://elsewhere/"));
        for link in ["http://elsewhere/x", "//shop.example/x", "ftp://shop.example/x", "http://10.0.0.1/x"] {
            check(link, Err(LinkError::Elsewhere));
        }
        check("http://user@shop.example/x", Err(LinkError::Elsewhere));
        for link in ["", "#x", "http://", "/a b"] {
            check(link, Err(LinkError::Malformed));
        }
    }

    proptest! {
        #[test]
        fn any_link_is_a_path_or_refused(link in "[ -~]{0,40}") {
            if let Ok(path) = resolve(&link, &PathAndQuery::from_static("/"), &["a"]) {
                prop_assert!(path.as_str().starts_with('/'));
            }
        }
    }
}
