// tlog-checker DIR VKEY [OLD-CHECKPOINT]: checks a C2SP tlog-tiles directory with golang.org/x/mod alone.
//
// It opens DIR/checkpoint with the verifier key, rebuilds the root from the tiles, proves every entry
// of every bundle into that root, and, given an older checkpoint, proves that the tree only grew.
// It prints "ok ORIGIN SIZE ROOT", or says what is wrong and exits 1.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const tileHeight = 8

// tiles reads hash tiles from a directory in the C2SP layout.
type tiles string

func (root tiles) Height() int { return tileHeight }

func (root tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (root tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	read := make([][]byte, 0, len(wanted))
	for _, tile := range wanted {
		// x/mod names the height, C2SP does not.
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		content, err := os.ReadFile(filepath.Join(string(root), path))
		if err != nil {
			return nil, err
		}
		read = append(read, content)
	}
	return read, nil
}

type checkpoint struct {
	origin string
	tree   tlog.Tree
}

func open(path string, key note.Verifier) (checkpoint, error) {
	signed, err := os.ReadFile(path)
	if err != nil {
		return checkpoint{}, err
	}
	opened, err := note.Open(signed, note.VerifierList(key))
	if err != nil {
		return checkpoint{}, fmt.Errorf("%s: %w", path, err)
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 {
		return checkpoint{}, fmt.Errorf("%s: too few lines", path)
	}
	if lines[0] != key.Name() {
		return checkpoint{}, fmt.Errorf("%s: origin %q, key of %q", path, lines[0], key.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return checkpoint{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return checkpoint{lines[0], tlog.Tree{N: size, Hash: root}}, err
}

// entries gives the entries of one bundle, each behind its length.
func entries(root string, bundle int64, count int) ([][]byte, error) {
	tile := tlog.Tile{H: tileHeight, L: 0, N: bundle, W: count}
	path := strings.Replace(tile.Path(), "tile/8/0/", "tile/entries/", 1)
	rest, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return nil, err
	}
	var found [][]byte
	for len(rest) > 0 {
		if len(rest) < 2 {
			return nil, fmt.Errorf("%s: cut off", path)
		}
		length := int(binary.BigEndian.Uint16(rest))
		if len(rest) < 2+length {
			return nil, fmt.Errorf("%s: cut off", path)
		}
		found, rest = append(found, rest[2:2+length]), rest[2+length:]
	}
	if len(found) != count {
		return nil, fmt.Errorf("%s: %d entries, not %d", path, len(found), count)
	}
	return found, nil
}

func checkEntries(root string, tree tlog.Tree, hashes tlog.HashReader) error {
	const full = 1 << tileHeight
	for first := int64(0); first < tree.N; first += full {
		bundle, err := entries(root, first/full, int(min(full, tree.N-first)))
		if err != nil {
			return err
		}
		for offset, entry := range bundle {
			index := first + int64(offset)
			proof, err := tlog.ProveRecord(tree.N, index, hashes)
			if err != nil {
				return fmt.Errorf("entry %d: %w", index, err)
			}
			if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
				return fmt.Errorf("entry %d: %w", index, err)
			}
		}
	}
	return nil
}

func check(arguments []string) (checkpoint, error) {
	if len(arguments) != 2 && len(arguments) != 3 {
		return checkpoint{}, errors.New("usage: tlog-checker DIR VKEY [OLD-CHECKPOINT]")
	}
	root := arguments[0]
	key, err := note.NewVerifier(arguments[1])
	if err != nil {
		return checkpoint{}, err
	}
	head, err := open(filepath.Join(root, "checkpoint"), key)
	if err != nil {
		return head, err
	}
	// The reader authenticates every tile against the signed root before it uses one.
	hashes := tlog.TileHashReader(head.tree, tiles(root))
	rebuilt, err := tlog.TreeHash(head.tree.N, hashes)
	if err != nil {
		return head, err
	}
	if rebuilt != head.tree.Hash {
		return head, errors.New("the tiles do not give the signed root")
	}
	if len(arguments) == 3 {
		old, err := open(arguments[2], key)
		if err != nil {
			return head, err
		}
		proof, err := tlog.ProveTree(head.tree.N, old.tree.N, hashes)
		if err != nil {
			return head, err
		}
		if err := tlog.CheckTree(proof, head.tree.N, head.tree.Hash, old.tree.N, old.tree.Hash); err != nil {
			return head, fmt.Errorf("not an extension of %s: %w", arguments[2], err)
		}
	}
	return head, checkEntries(root, head.tree, hashes)
}

func main() {
	head, err := check(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ok", head.origin, head.tree.N, head.tree.Hash)
}
