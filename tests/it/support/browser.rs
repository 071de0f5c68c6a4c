//! Debian's Chromium, driven by its chromedriver over WebDriver.

use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

const CHROMIUM: &str = "/usr/bin/chromium";
const CHROMEDRIVER: &str = "/usr/bin/chromedriver";
const STARTS_MAX: usize = 5;
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a page may take to show something; a loaded machine is slow.
const SHOW_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A browser window with a profile of its own; all of it is gone when the test ends.
pub struct Browser {
    /// The window.
    pub client: Client,
    driver: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts the driver on a free port, and a window.
    ///
    /// # Panics
    /// When Chromium or its driver is missing: a browser test that is skipped proves nothing.
    pub async fn start() -> Self {
        for program in [CHROMIUM, CHROMEDRIVER] {
            let there = std::path::Path::new(program).exists();
            assert!(there, "{program} is missing; `make test` installs it (apt-get install chromium chromium-driver)");
        }
        let profile = tempfile::tempdir().expect("a folder for the profile");
        let (driver, port) = start_driver().await;
        let options = json!({
            "binary": CHROMIUM,
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic",
                "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--ignore-certificate-errors", "--window-size=1440,1200",
                format!("--user-data-dir={}", profile.path().display()),
            ],
        });
        let mut capabilities = serde_json::Map::new();
        capabilities.insert("goog:chromeOptions".into(), options);
        capabilities.insert("goog:loggingPrefs".into(), json!({ "browser": "ALL" }));
        capabilities.insert("acceptInsecureCerts".into(), true.into());
        let mut builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
        let connecting = builder.capabilities(capabilities);
        let client = tokio::time::timeout(START_TIMEOUT, connecting.connect(&format!("http://127.0.0.1:{port}"))).await;
        let client = client.expect("Chromium starts in time").expect("Chromium starts");
        Self { client, driver, _profile: profile }
    }

    /// Runs a script in the page and gives what it returns.
    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.expect("the script runs")
    }

    /// The text of the element with this `data-testid`.
    pub async fn text(&self, id: &str) -> String {
        let text = self.run(&format!("return document.querySelector('[data-testid=\"{id}\"]').textContent")).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// The number shown by the element with this `data-testid`.
    pub async fn number(&self, id: &str) -> u64 {
        let text = self.text(id).await;
        text.replace(',', "").parse().unwrap_or_else(|_| panic!("{id} shows {text:?}, which is no number"))
    }

    /// Clicks the element with this `data-testid`, as a user does: it must be there to be seen.
    pub async fn click(&self, id: &str) {
        let found = self.client.find(Locator::Css(&format!("[data-testid=\"{id}\"]"))).await;
        found.expect("the element is there").click().await.expect("it can be clicked");
    }

    /// Waits until the script's value is true; `what` says for whom one waited in vain.
    pub async fn wait_until(&self, what: &str, script: &str) {
        let end = Instant::now() + SHOW_TIMEOUT;
        while self.run(script).await != Value::Bool(true) {
            if Instant::now() > end {
                let shown = self.run("return document.body.innerText.slice(0, 2000)").await;
                panic!("the page never showed {what}; it shows:\n{}", shown.as_str().unwrap_or_default());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Closes the window and ends the driver.
    pub async fn close(mut self) {
        self.client.clone().close().await.expect("the window closes");
        self.driver.kill().await.expect("the driver ends");
    }
}

/// Starts the driver. It ends at once where another process takes the port that it picked: then another try.
async fn start_driver() -> (Child, u16) {
    for _ in 0..STARTS_MAX {
        if let Some(started) = try_start_driver().await {
            return started;
        }
    }
    panic!("the driver ended at once, {STARTS_MAX} times");
}

/// The driver picks a free port by itself and says which; `None` if it ended without having one.
async fn try_start_driver() -> Option<(Child, u16)> {
    let mut driver = Command::new(CHROMEDRIVER)
        .arg("--port=0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the driver can be started");
    let mut lines = BufReader::new(driver.stdout.take().expect("its output is piped")).lines();
    let waiting = async {
        while let Some(line) = lines.next_line().await.expect("its output is text") {
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                return Some(port.trim_end_matches('.').parse().expect("a port"));
            }
        }
        None
    };
    let port = tokio::time::timeout(START_TIMEOUT, waiting).await.expect("the driver starts in time")?;
    tokio::task::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Some((driver, port))
}
