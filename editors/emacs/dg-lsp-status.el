;;; dg-lsp-status.el --- The server's state and log, as it tells them  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; What the mode line says of the server, and the buffer of its log.

;;; Code:

(require 'dg-lsp-server)
(require 'dg-lsp-connection)

(declare-function dg-lsp-menu "dg-lsp-commands" (event))

(defcustom dg-lsp-log-lines 2000
  "How many lines of the server's log are kept."
  :type 'natnum
  :group 'dg-lsp)

(defface dg-lsp-mode-line '((t :inherit mode-line-emphasis))
  "The name of dg-lsp in the mode line."
  :group 'dg-lsp)

(defface dg-lsp-mode-line-error '((t :inherit error))
  "The name of dg-lsp in the mode line when something is wrong."
  :group 'dg-lsp)

;;;; Log

(defun dg-lsp-log-buffer ()
  "Return the buffer of the log."
  (or (get-buffer "*dg-lsp log*")
      (with-current-buffer (get-buffer-create "*dg-lsp log*")
        (special-mode)
        (setq-local buffer-undo-list t)
        (current-buffer))))

(defun dg-lsp-log (format &rest arguments)
  "Write a line to the log, made from FORMAT and ARGUMENTS."
  (with-current-buffer (dg-lsp-log-buffer)
    (let ((inhibit-read-only t)
          (follows (eobp)))
      (save-excursion
        (goto-char (point-max))
        (insert (format-time-string "%T ") (apply #'format format arguments)
                "\n")
        (forward-line (- dg-lsp-log-lines))
        (delete-region (point-min) (point)))
      (when follows (goto-char (point-max))))))

(defmacro dg-lsp-protect (&rest body)
  "Run BODY, as a hook or a callback, with any error in the log.
Typing must not be disturbed, and Emacs would take the hook away.  With
`debug-on-error' the debugger is entered as usual."
  (declare (indent 0) (debug t))
  `(condition-case-unless-debug trouble
       (progn ,@body)
     (error (dg-lsp-log "Emacs: %s" (error-message-string trouble)) nil)))

(cl-defmethod dg-lsp-server-hear
  ((_server dg-lsp-server) (_method (eql window/logMessage))
   &key type message &allow-other-keys)
  "Keep MESSAGE of TYPE in the log."
  (dg-lsp-log "%s: %s"
              (pcase type (1 "error") (2 "warning") (3 "info") (_ "debug"))
              message))

;;;; State

(cl-defmethod dg-lsp-server-hear
  ((server dg-lsp-server) (_method (eql dg/status)) &rest status)
  "Show the STATUS of SERVER, whose first comes when it is ready for more."
  (unless (dg-lsp-server-status server)
    (dg-lsp-server-pause-too server))
  (setf (dg-lsp-server-status server) status)
  (force-mode-line-update t))

(defun dg-lsp-status ()
  "Return what the server of this buffer told of its state, a plist."
  (when-let* ((server (dg-lsp-current-server)))
    (or (dg-lsp-server-status server)
        '(:state "idle" :message "The server has not told its state yet."))))

(defun dg-lsp-status--label (status)
  "Return a short text for STATUS."
  (let ((state (plist-get status :state))
        (fraction (plist-get status :fraction)))
    (if (and (equal state "loading") (numberp fraction))
        (format "dg:loading %d%%" (round (* 100 fraction)))
      (concat "dg:" state))))

(defun dg-lsp-status--help (status)
  "Return a few lines for people on STATUS."
  (mapconcat #'identity
             (delq nil (list (plist-get status :message)
                             (plist-get status :remedy)
                             (when-let* ((model (plist-get status :model)))
                               (concat "Model: " model))
                             "mouse-1: menu"))
             "\n"))

(defvar dg-lsp-status-map
  (let ((map (make-sparse-keymap)))
    (define-key map [mode-line down-mouse-1] #'dg-lsp-menu)
    map)
  "Keys on the state in the mode line.")

(defun dg-lsp-mode-line ()
  "Return the state of the server for the mode line."
  (if-let* ((status (dg-lsp-status)))
      (propertize (dg-lsp-status--label status)
                  'face (if (equal (plist-get status :state) "error")
                            'dg-lsp-mode-line-error
                          'dg-lsp-mode-line)
                  'help-echo (dg-lsp-status--help status)
                  'mouse-face 'mode-line-highlight
                  'local-map dg-lsp-status-map)
    (if (dg-lsp-connection-starting-p)
        (propertize "dg:starting" 'face 'dg-lsp-mode-line)
      (propertize "dg:no server" 'face 'dg-lsp-mode-line-error
                  'help-echo "Start it with M-x dg-lsp-restart-server"))))

(provide 'dg-lsp-status)
;;; dg-lsp-status.el ends here
