// SPDX-License-Identifier: MIT
//
// file.go - random reads of 4 KiB of one file in Go: a goroutine for each of DEPTH
//
//	file FILE DEPTH SECONDS cached|direct
package main

import (
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const block = 4096

func aligned() []byte {
	buf := make([]byte, 2*block)
	skip := block - int(uintptr(unsafe.Pointer(&buf[0]))%block)
	return buf[skip : skip+block]
}

func main() {
	depth, _ := strconv.Atoi(os.Args[2])
	seconds, _ := strconv.ParseFloat(os.Args[3], 64)
	flags := os.O_RDONLY
	if os.Args[4] == "direct" {
		flags |= syscall.O_DIRECT
	}
	f, err := os.OpenFile(os.Args[1], flags, 0)
	if err != nil {
		log.Fatal(err)
	}
	info, _ := f.Stat()
	blocks := uint64(info.Size() / block)
	begin := time.Now().Add(time.Duration(seconds * 0.2e9))
	end := begin.Add(time.Duration(seconds * 1e9))
	var total int64
	var all sync.WaitGroup
	for i := 0; i < depth; i++ {
		all.Add(1)
		go func(random uint64) {
			defer all.Done()
			buf := aligned()
			n := int64(0)
			for now := time.Now(); now.Before(end); now = time.Now() {
				for k := 0; k < 16; k++ {
					random ^= random << 13
					random ^= random >> 7
					random ^= random << 17
					if _, err := f.ReadAt(buf, int64(random%blocks)*block); err != nil {
						log.Fatal(err)
					}
				}
				if now.After(begin) {
					n += 16
				}
			}
			atomic.AddInt64(&total, n)
		}(uint64(i+1) * 0x9e3779b97f4a7c15)
	}
	all.Wait()
	fmt.Printf("{\"rate\":%.0f}\n", float64(total)/seconds)
}
