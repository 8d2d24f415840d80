// Prints the CID that ipfs-unixfs-importer gives each folder. It stands beside the node_modules that have it.
// In, a line each: {"folder", "chunk", "width", "cidVersion", "rawLeaves", "strategy", "threshold", "profile"?}
// Out, a line each: the CID. With a profile, the importer's own one of that name is used and nothing else is said.

import { createReadStream } from 'node:fs'
import { readdir, readlink } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { BlackHoleBlockstore } from 'blockstore-core/black-hole'
import { importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'

async function * entries (root, path) {
  const found = (await readdir(`${root}/${path}`, { withFileTypes: true })).filter(entry => !entry.name.startsWith('.'))
  if (found.length === 0 && path !== '') yield { path }
  for (const entry of found) {
    const inner = path === '' ? entry.name : `${path}/${entry.name}`
    if (entry.isDirectory()) yield * entries(root, inner)
    else if (entry.isSymbolicLink()) yield { path: inner, link: await readlink(`${root}/${inner}`) }
    else yield { path: inner, content: lazily(`${root}/${inner}`) }
  }
}

async function * lazily (file) { // a folder has more files than can be open at once
  yield * createReadStream(file, { highWaterMark: 1 << 20 })
}

function options (asked) {
  if (asked.profile != null) return { wrapWithDirectory: true, profile: asked.profile }
  return {
    wrapWithDirectory: true,
    cidVersion: asked.cidVersion,
    rawLeaves: asked.rawLeaves,
    chunker: fixedSize({ chunkSize: asked.chunk }),
    layout: balanced({ maxChildrenPerNode: asked.width }),
    shardSplitStrategy: asked.strategy,
    shardSplitThresholdBytes: asked.threshold
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line)
  let last
  for await (const entry of importer(entries(asked.folder, ''), new BlackHoleBlockstore(), options(asked))) last = entry
  console.log(last.cid.toString())
}
