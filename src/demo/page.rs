//! The page's files, embedded in the binary.

/// A file and how it is served.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// Its media type.
    pub media_type: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// Finds the file served at `path`.
pub fn find(path: &str) -> Option<Asset> {
    let (media_type, text) = match path {
        "/" => ("text/html; charset=utf-8", include_str!("page/index.html")),
        "/app.js" => ("text/javascript; charset=utf-8", include_str!("page/app.js")),
        "/style.css" => ("text/css; charset=utf-8", include_str!("page/style.css")),
        "/pushbridge.js" => ("text/javascript; charset=utf-8", include_str!("../../clients/js/pushbridge.js")),
        "/favicon.svg" => ("image/svg+xml", include_str!("page/favicon.svg")),
        _ => return None,
    };
    Some(Asset { media_type, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_no_outside_host_and_only_files_that_exist() {
        let page = find("/").expect("a page").text;
        for text in [page, find("/app.js").expect("a script").text, find("/style.css").expect("a style").text] {
            let outside = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!outside.contains("http://") && !outside.contains("https://"), "an outside host is named");
        }
        let named = page.split("=\"/").skip(1).filter_map(|part| part.split_once('"'));
        let mut count = 0;
        for (name, _) in named {
            let path = format!("/{name}");
            assert!(find(&path).is_some(), "{path} is named by the page");
            count += 1;
        }
        assert!(count >= 3);
    }
}
