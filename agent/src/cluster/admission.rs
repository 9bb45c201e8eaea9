//! Letting nodes in: `invite`, and the answer to `Join`.

use std::net::{IpAddr, SocketAddr};

use safe_proto::cluster::{JoinRequest, JoinResponse};
use safe_proto::node::LanAddress;
use safe_proto::settings::label;

use super::founding::parse_addresses;
use super::{Cluster, ClusterError, Joined};
use crate::clock;
use crate::pki::authority::Request;
use crate::token::issued::{IssuedTokens, Redeemed, Used};
use crate::token::{Token, TokenError};

const TOKENS: &str = "tokens.json";
/// Seconds a token is good for if nothing is said.
const DEFAULT_TTL: u32 = 3600;

impl Cluster {
    /// Makes a token for one more node; answers with its expiry too. Waits for the disk.
    ///
    /// # Errors
    /// No cluster, too many tokens are open, or the disk refuses.
    pub fn invite(&self, ttl: u32) -> Result<(String, u64), ClusterError> {
        let _changing = self.changing.lock();
        self.issue(u64::from(if ttl == 0 { DEFAULT_TTL } else { ttl }))
    }

    /// The caller holds `changing`.
    pub(super) fn issue(&self, ttl: u64) -> Result<(String, u64), ClusterError> {
        let joined = self.member()?;
        let settings = &joined.held.settings;
        let now = clock::unix_s();
        let expires = now.saturating_add(ttl);
        let secret = crate::random::bytes();
        let mut tokens = self.tokens()?;
        tokens.add(&secret, expires, now).map_err(ClusterError::Failed)?;
        self.store.save_text(TOKENS, &tokens.to_json())?;
        let own = settings.node(&joined.held.node).map(|node| &node.addresses);
        let endpoint = |lan: &String| Some(SocketAddr::new(*own?.get(lan)?, settings.ports.api));
        let token = Token {
            cluster: settings.cluster.clone(),
            endpoints: settings.lans.iter().filter_map(endpoint).collect(),
            ca: joined.authority()?.fingerprint(),
            secret,
            expires,
        };
        Ok((token.encode(), expires))
    }

    /// Admits a node. Everything is durable before the answer: first the token is spent, then the node is a member;
    /// if this node dies between, the same process may ask again. Waits for the disk.
    ///
    /// # Errors
    /// The token does not let it in, its name or an address is taken, or something it says is wrong.
    pub fn admit(&self, request: &JoinRequest) -> Result<JoinResponse, ClusterError> {
        let _changing = self.changing.lock();
        let joined = self.member()?;
        let secret: [u8; 32] =
            request.secret.as_slice().try_into().map_err(|_| ClusterError::Token(TokenError::Foreign))?;
        let csr =
            Request::parse(&request.certificate_request).map_err(|error| ClusterError::Invalid(error.0))?;
        label("node", &request.node)?;
        let mut tokens = self.tokens()?;
        let by = Used { node: request.node.clone(), key: csr.key.clone() };
        let redeemed = tokens.redeem(&secret, by, clock::unix_s())?;
        let settings = &joined.held.settings;
        let known = settings.node(&request.node).filter(|node| node.key == csr.key);
        let next = match (redeemed, known) {
            (Redeemed::Again, Some(_)) => settings.clone(),
            (Redeemed::Again | Redeemed::Now, _) => self.admitted(&joined, request, &csr)?,
        };
        let ips: Vec<IpAddr> =
            next.node(&request.node).into_iter().flat_map(|node| node.addresses.values().copied()).collect();
        let certificate = joined.authority()?.certify_node(csr, &request.node, &ips)?;
        self.store.save_text(TOKENS, &tokens.to_json())?;
        if next != *settings {
            self.change_settings(&joined, next.clone())?;
            let text =
                format!("node {} joined the cluster (settings version {})", request.node, next.version);
            self.context.events.record("", false, &text);
        }
        Ok(JoinResponse {
            ca: joined.held.ca.clone(),
            ca_key: joined.held.ca_key.clone(),
            certificate,
            secret: joined.held.secret.to_vec(),
            settings: next.to_json(),
        })
    }

    fn admitted(
        &self,
        joined: &Joined,
        request: &JoinRequest,
        csr: &Request,
    ) -> Result<safe_proto::settings::ClusterSettings, ClusterError> {
        let addresses: Vec<LanAddress> = request
            .addresses
            .iter()
            .map(|one| LanAddress { lan: one.lan.clone(), address: one.address.clone() })
            .collect();
        let settings = &joined.held.settings;
        let parsed = parse_addresses(&addresses)?;
        if settings.node(&request.node).is_some() {
            return Err(ClusterError::Taken(format!(
                "cluster {} has a node {} already: choose another --node",
                settings.cluster, request.node
            )));
        }
        let holder =
            |ip: &IpAddr| settings.nodes.iter().find(|node| node.addresses.values().any(|other| other == ip));
        if let Some((ip, node)) = parsed.values().find_map(|ip| Some((ip, holder(ip)?))) {
            return Err(ClusterError::Taken(format!("address {ip} is of node {} already", node.name)));
        }
        Ok(settings.with_node(&request.node, parsed, csr.key.clone())?)
    }

    fn tokens(&self) -> Result<IssuedTokens, ClusterError> {
        match self.store.load_text(TOKENS)? {
            None => Ok(IssuedTokens::default()),
            Some(text) => {
                IssuedTokens::parse(&text).map_err(|error| ClusterError::Failed(format!("{TOKENS}: {error}")))
            }
        }
    }
}
