//! That this instance lives: a key of its own, which expires. What it told of its sessions counts for as long.

use crate::bus::redis::Shared;
use crate::bus::redis::connect::Link;
use crate::bus::redis::keys::Keys;
use futures_util::future::try_join_all;
use redis::{RedisError, RedisResult};
use std::time::Duration;

/// How long the sessions of an instance count that says no more.
pub const LEASE_MS: u64 = 15_000;
/// Two renewals may be lost.
const RENEW_EVERY: Duration = Duration::from_millis(LEASE_MS / 3);
/// Instances that are looked for at most; of more, the rest count as gone.
const INSTANCES_MAX: usize = 1000;

/// Renews the lease until Redis can't be asked.
pub async fn keep(shared: &Shared, link: &Link) -> RedisError {
    loop {
        let mut set = redis::cmd("SET");
        set.arg(shared.keys.instance(&shared.instance)).arg(1).arg("PX").arg(LEASE_MS);
        if let Err(error) = set.exec_async(&mut link.commands.clone()).await {
            return error;
        }
        tokio::time::sleep(RENEW_EVERY).await;
    }
}

/// Ends the lease before its time.
pub async fn end(shared: &Shared, link: &Link) {
    let mut del = redis::cmd("DEL");
    del.arg(shared.keys.instance(&shared.instance));
    // It ends by itself otherwise.
    let _ = del.exec_async(&mut link.commands.clone()).await;
}

/// Those of the instances that live.
///
/// # Errors
/// When Redis can't be asked.
pub async fn living(
    link: &Link,
    keys: &Keys,
    mut instances: Vec<(Box<str>, usize)>,
) -> RedisResult<Vec<(Box<str>, usize)>> {
    instances.truncate(INSTANCES_MAX);
    // One command each: their keys may be on different nodes of a cluster.
    let looks = instances.iter().map(|(instance, _)| {
        let key = keys.instance(instance);
        async move { redis::cmd("EXISTS").arg(key).query_async::<bool>(&mut link.commands.clone()).await }
    });
    let lives = try_join_all(looks).await?;
    Ok(instances.into_iter().zip(lives).filter_map(|(instance, lives)| lives.then_some(instance)).collect())
}
